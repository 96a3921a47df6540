// What is under way, for the thread that asked.
#pragma once

#include <iokernel/channel.hpp>

#if defined(__cpp_impl_coroutine)
#include <coroutine>
#endif

namespace iokernel {

namespace detail {

// How a T is made of what has ended.
template <class T>
struct Taking;

template <>
struct Taking<Reply> {
    static Result<Reply> take(Op& op) {
        if (!op.is_ok()) return op.error();
        return Reply(op.head, std::move(op.payload));
    }
};

template <>
struct Taking<Ok> {
    static Result<Ok> take(Op& op) {
        if (!op.is_ok()) return op.error();
        return Ok{};
    }
};

}  // namespace detail

// A T that will be there, or an Error. It is taken once: by `get`, by `then`, or by `co_await`.
//
// Dropping a Future lets the request go on without a listener; `cancel` ends it. A coroutine that is destroyed while it
// awaits one cancels it. A Future belongs to the thread that made it, and outlives its kernel: then it holds an error.
template <class T>
class [[nodiscard]] Future {
public:
    explicit Future(detail::Ref<detail::Op> op) : op_(std::move(op)) {}
    Future(Future&&) noexcept = default;
    Future& operator=(Future&& other) noexcept {
        drop();
        op_ = std::move(other.op_);
        return *this;
    }
    ~Future() { drop(); }

    // True once `get` would not wait. Looks for what has completed.
    bool is_ready() {
        if (!op_->done) op_->channel->poll();
        return op_->done;
    }

    // Waits until it is ready, so long at most. False if it is not.
    bool wait(Milliseconds timeout) {
        return op_->done || op_->channel->wait([this] { return op_->done; }, timeout);
    }

    // Waits, for as long as the request's own deadline allows, and takes the outcome.
    Result<T> get() {
        if (!op_->done) op_->channel->wait([this] { return op_->done; });
        return take();
    }

    // Ends the request; the outcome is an Error of the kind `cancelled`, unless it had ended before.
    void cancel() {
        if (op_->done) return;
        auto keep = detail::Ref<detail::Op>::share(op_.get());
        op_->drop();
        if (op_->tag) op_->channel->cancel(op_->tag, !op_->hears_after_cancel);
        if (!op_->done) op_->fail(detail::error_of(IOK_STATUS_CANCELLED, Fate::maybe_executed));
    }

    // Calls `handler(Result<T>)` once it is ready, in this thread: while it waits, polls or runs a loop. At once if it
    // is.
    template <class Handler>
    void then(Handler handler) && {
        if (op_->done) return handler(take());
        struct Node {
            Handler handler;
            Future future;
            static void run(void* self) {
                std::unique_ptr<Node> node(static_cast<Node*>(self));
                node->handler(node->future.take());
            }
        };
        detail::Op* op = op_.get();
        op->who = new Node{std::move(handler), std::move(*this)};
        op->wake = &Node::run;
    }

#if defined(__cpp_impl_coroutine)
    struct Awaiter {
        explicit Awaiter(Future awaited) : future(std::move(awaited)) {}
        Awaiter(Awaiter&&) = delete;
        ~Awaiter() {
            if (!future.op_ || future.op_->done || !future.op_->wake) return;
            future.op_->wake = nullptr;
            future.cancel();
        }
        bool await_ready() const noexcept { return future.op_->done; }
        void await_suspend(std::coroutine_handle<> waiting) noexcept {
            future.op_->who = waiting.address();
            future.op_->wake = [](void* address) { std::coroutine_handle<>::from_address(address).resume(); };
        }
        Result<T> await_resume() { return future.take(); }
        Future future;
    };

    // `co_await endpoint.request(...)` gives a Result<T>.
    Awaiter operator co_await() && { return Awaiter(std::move(*this)); }
#endif

private:
    Result<T> take() {
        detail::Ref<detail::Op> op = std::move(op_);
        if (!op->done) return detail::error_of(IOK_STATUS_CLOSED);
        return detail::Taking<T>::take(*op);
    }

    void drop() {
        if (op_) detail::Ref<detail::Op>(op_.release())->drop();
    }

    detail::Ref<detail::Op> op_;
};

namespace detail {

// One that has failed before it began.
template <class T>
inline Future<T> failed(Error error) {
    Ref<Op> op(new Op);
    op->fail(std::move(error));
    return Future<T>(std::move(op));
}

}  // namespace detail
}  // namespace iokernel
