// iokernel for C++17 and later: all the networking of a program in one I/O thread, with C++'s own manners.
//
//     #include <iokernel.hpp>
//
//     auto redis = iokernel::open("redis://127.0.0.1:6379").value();   // returns at once
//     redis.call("SET", "greeting", "hello").value();                  // blocking
//     auto reply = redis.request("GET", "greeting");                   // a Future: get(), wait(), then(), co_await
//     std::cout << reply.get().value().text();
//
// Nothing here throws but `Result::value()`, and that only where exceptions are on; without them it ends the program.
// Neither exceptions nor RTTI are needed. Coroutines (Task, Loop, co_await of a Future) are there with C++20.
//
// Threads. A Kernel, an Endpoint and the cells of metrics may be used by any thread: each has a Channel of its own,
// made at its first use. Futures, Subscriptions, Leases and Listeners belong to the thread that made them. Handlers
// given to `then` and coroutines run in that thread, while it waits, polls, or runs its Loop.
//
// Forks. In a forked child a Kernel and its Endpoints open again at their first use; what was under way in the parent
// fails there with IOK_STATUS_FORKED and goes on in the parent.
//
// docs: bindings/cpp/README.md. Everything is built on iokernel.h, whose functions can be used beside it.
#pragma once

#include <iokernel/cells.hpp>
#include <iokernel/channel.hpp>
#include <iokernel/endpoint.hpp>
#include <iokernel/future.hpp>
#include <iokernel/kernel.hpp>
#include <iokernel/listener.hpp>
#include <iokernel/loop.hpp>
#include <iokernel/pack.hpp>
#include <iokernel/result.hpp>
#include <iokernel/value.hpp>
#include <iokernel/view.hpp>
