"""The shared scenarios in Python: `bindings/scenarios/run.py python`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import iokernel
from iokernel._native import ThreadChannel
from iokernel._records import OP_ECHO
from iokernel._values import pack, unpack

REDIS = os.environ["IOK_REDIS"]

Scenario = dict[str, Any]
scenarios: dict[str, Callable[[Scenario], None]] = {}


def scenario(name: str) -> Callable[[Callable[[Scenario], None]], Callable[[Scenario], None]]:
    """Names the function that shows it."""

    def remember(function: Callable[[Scenario], None]) -> Callable[[Scenario], None]:
        scenarios[name] = function
        return function

    return remember


def main() -> int:
    listed = json.loads(Path(os.environ["IOK_SCENARIOS"]).read_text())["scenarios"]
    failed = 0
    print(f"1..{len(listed)}", flush=True)
    for number, one in enumerate(listed, 1):
        try:
            scenarios[one["name"]](one)
            print(f"ok {number} - {one['name']}", flush=True)
        except Exception as error:
            failed += 1
            why = " ".join(repr(error).split())
            print(f"not ok {number} - {one['name']} # {why}", flush=True)
    return 1 if failed else 0


# What the scenarios have in common


def check(is_so: object, why: object) -> None:
    if not is_so:
        raise AssertionError(why)


@contextlib.contextmanager
def opened(url: str = REDIS, **config: Any) -> Iterator[iokernel.Endpoint]:
    """An endpoint in a kernel of its own."""
    with iokernel.Kernel(**config) as kernel, kernel.open(url) as endpoint:
        yield endpoint


def as_python(value: dict[str, Any]) -> Any:
    """`{"bytes": "v"}` as the binding gives it."""
    ((kind, given),) = value.items()
    if kind == "array":
        return [as_python(one) for one in given]
    return {"bytes": str(given).encode(), "nil": None}.get(kind, given)


def same(found: Any, wanted: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(found) is not type(wanted):
        return False
    if isinstance(found, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(found, dict):
        return found.keys() == wanted.keys() and all(same(found[key], wanted[key]) for key in wanted)
    return bool(found == wanted)


def expect(call: Callable[[], Any], wanted: dict[str, Any], what: object = "") -> None:
    """The call ends as a scenario says: `reply` or `error`."""
    if "reply" in wanted:
        found = call()
        check(same(found, as_python(wanted["reply"])), f"{what}: {found!r}: expected {wanted['reply']}")
        return
    try:
        found = call()
    except iokernel.Error as error:
        is_error(error, wanted["error"])
    else:
        raise AssertionError(f"{what}: {found!r}: expected {wanted['error']}")


def is_error(error: iokernel.Error, wanted: dict[str, str]) -> None:
    found = {"error": error.status_name.lower(), "code": error.code, "fate": error.fate}
    for key in found.keys() & wanted.keys():
        check(found[key] == wanted[key], f"{error!r}: {key} {found[key]}: expected {wanted[key]}")
    check(wanted.get("names", "") in str(error), f"{error}: expected that it names {wanted.get('names')}")


def filled(request: list[Any], **values: Any) -> list[Any]:
    """A request whose `$name`s are filled in."""
    return [str(values[part[1:]]) if isinstance(part, str) and part[:1] == "$" else part for part in request]


def small_rings(kernel: iokernel.Kernel, config: str) -> None:
    """From here on this thread's channel is one of this configuration, which the surface does not offer."""
    kernel._local.channel = ThreadChannel(kernel._open_channel(config), kernel.names, record_max=1 << 14)


# The scenarios


@scenario("echo")
def echo(one: Scenario) -> None:
    with iokernel.Kernel() as kernel:
        for value in one["values"]:
            found = unpack(kernel.submit(OP_ECHO, 0, 0, None, 0, pack(value)).result())
            check(same(found, value), f"{found!r}: expected {value!r}")


@scenario("get-set")
def get_set(one: Scenario) -> None:
    with opened() as redis:
        for call in one["calls"]:
            expect(lambda: redis.call(*call["call"]), call, call["call"])  # noqa: B023


@scenario("errors-and-fates")
def errors_and_fates(one: Scenario) -> None:
    get_set(one)
    for wrong in one["urls"]:
        expect(lambda: iokernel.open(wrong["url"]), wrong, wrong["url"])  # noqa: B023
    refused = one["refused"]
    with opened(refused["url"]) as nobody:
        expect(lambda: nobody.call(*refused["call"], timeout=refused["timeout"] / 1000), refused)


@scenario("timeout")
def timeout(one: Scenario) -> None:
    with opened() as redis:
        redis.wait_ready(5)
        expect(lambda: redis.call(*one["slow"], timeout=one["timeout"] / 1000), one)
        expect(lambda: redis.call(*one["then"]["call"]), one["then"])


@scenario("cancel")
def cancel(one: Scenario) -> None:
    with opened() as redis:
        redis.wait_ready(5)
        slow = redis(*one["slow"])
        time.sleep(one["cancel_after"] / 1000)
        started = time.monotonic()
        check(slow.cancel(), "it had ended already")
        expect(slow.result, one)
        check((time.monotonic() - started) * 1000 < one["ends_within"], "it did not end at once")
        expect(lambda: redis.call(*one["then"]["call"]), one["then"])
    asyncio.run(cancel_a_task(one))


async def cancel_a_task(one: Scenario) -> None:
    with opened() as redis:
        await redis.ready(5)

        async def ask() -> None:
            await redis(*one["slow"])

        task = asyncio.ensure_future(ask())
        await asyncio.sleep(one["cancel_after"] / 1000)
        started = time.monotonic()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        check(task.cancelled() and (time.monotonic() - started) * 1000 < one["ends_within"], "it did not end at once")
        found = await redis(*one["then"]["call"])
        check(same(found, as_python(one["then"]["reply"])), f"the next request's reply was {found!r}")


@scenario("pubsub")
def pubsub(one: Scenario) -> None:
    wanted = [str(number).encode() for number in range(one["messages"])]
    with opened() as redis:
        with redis.subscribe(*one["subscribe"]) as messages:
            for number in range(one["messages"]):
                redis.send(*filled(one["publish"], number=number))
            found = [messages.get(10)[2] for _ in wanted]
        check(found == wanted, "messages were lost or out of order")
        check(list(messages) == [] and messages.closed, "it goes on after its end")
    asyncio.run(pubsub_in_a_loop(one, wanted))


async def pubsub_in_a_loop(one: Scenario, wanted: list[bytes]) -> None:
    with opened() as redis:
        async with redis.subscribe(*one["subscribe"]) as messages:
            for number in range(one["messages"]):
                redis.send(*filled(one["publish"], number=number))
            found = [(await anext(messages))[2] for _ in wanted]
        check(found == wanted, "messages were lost or out of order in a loop")


@scenario("pushes-lost")
def pushes_lost(one: Scenario) -> None:
    with opened() as reader, opened() as writer:
        small_rings(reader.kernel, one["channel"])
        with reader.subscribe(*one["subscribe"]) as messages:
            for number in range(one["messages"]):
                writer.call(*filled(one["publish"], bytes=f"{number:0{one['bytes']}}"))
            found: list[int] = []
            with contextlib.suppress(iokernel.Timeout):
                while len(found) + messages.lost < one["messages"]:
                    found.append(int(messages.get(2)[2]))
            check(messages.lost > 0, "nothing was lost")
            check(len(found) + messages.lost == one["messages"], f"{len(found)} came, {messages.lost} lost")
            check(found == sorted(set(found)), "messages are out of order")


@scenario("value-1MiB")
def value(one: Scenario) -> None:
    whole = os.urandom(1 << 16) * (one["bytes"] >> 16)
    with opened() as redis:
        check(redis.call("SET", "s:value", whole) == "OK", "it was not set")
        check(redis.call("GET", "s:value") == whole, "another value came back")
        redis.call("DEL", "s:value")


scenarios["value-64MiB"] = value


@scenario("many")
def many(one: Scenario) -> None:
    asyncio.run(many_at_a_time(one))


async def many_at_a_time(one: Scenario) -> None:
    fired = 0

    async def tick() -> None:
        nonlocal fired
        while True:
            await asyncio.sleep(one["timer"] / 1000)
            fired += 1

    with opened() as redis:
        before = await redis("INFO", "clients")
        timer = asyncio.ensure_future(tick())
        found = await asyncio.gather(*(redis(*filled(one["call"], number=n)) for n in range(one["requests"])))
        timer.cancel()
        check(found == [str(number).encode() for number in range(one["requests"])], "a reply was another's")
        check(fired > 0, "no timer fired meanwhile")
        after = await redis("INFO", "clients")
        clients = [re.findall(r"connected_clients:(\d+)", text) for text in (before, after)]
        check(clients[0] == clients[1], f"more than one conn: {clients}")


@scenario("back-pressure")
def back_pressure(one: Scenario) -> None:
    with opened() as redis:
        small_rings(redis.kernel, one["channel"])
        futures = [redis(*filled(one["call"], number=number)) for number in range(one["requests"])]
        lengths = [future.result() for future in futures]
        check(lengths == list(range(1, one["requests"] + 1)), "the order was not kept")
        found = redis.call("LRANGE", "s:order", 0, -1)
        check(found == [str(number).encode() for number in range(one["requests"])], "values were lost")


@scenario("lost-connection")
def lost_connection(one: Scenario) -> None:
    with opened() as redis:
        with redis.lease() as lease:
            number = lease.call("CLIENT", "ID")
            waiting = lease(*one["lease"])
            time.sleep(0.05)
            check(redis.call(*filled(one["kill"], id=number)) == 1, "there was no such conn")
            expect(waiting.result, one)
        expect(lambda: redis.call(*one["then"]["call"]), one["then"])


@scenario("transaction")
def transaction(one: Scenario) -> None:
    with opened() as redis:
        beside = [redis("ECHO", str(number)) for number in range(100)]
        with redis.lease() as conn:
            for call in one["calls"]:
                expect(lambda: conn.call(*call["call"]), call, call["call"])  # noqa: B023
                check(redis.call("ECHO", "beside") == b"beside", "others' requests are in it")
        check([future.result() for future in beside] == [str(number).encode() for number in range(100)], "beside")


@scenario("listen")
def listen(one: Scenario) -> None:
    with iokernel.Kernel() as kernel, kernel.listen(one["url"]) as listener:

        def answer(request: iokernel.Request) -> list[Any]:
            (method, target, *_), _body = request.args
            is_known = (method, target) == ("GET", one["path"])
            return [one["status"], {}, one["body"]] if is_known else [404, {}, None]

        thread = threading.Thread(target=listener.serve, args=[answer])
        thread.start()
        curl = ["curl", "-s", "-w", " %{http_code}", listener.url + one["path"]]
        said = subprocess.run(curl, capture_output=True, text=True, timeout=10).stdout
        listener.close()
        thread.join(5)
        check(said == f"{one['body']} {one['status']}", f"curl says {said!r}")
        check(not thread.is_alive(), "serve does not end")


@scenario("fork")
def fork(one: Scenario) -> None:
    with opened() as redis:
        redis.wait_ready(5)
        under_way = redis("DEBUG", "SLEEP", "0.2")
        child = os.fork()
        if child == 0:
            try:
                found = redis.call(*filled(one["call"], pid=os.getpid()), timeout=5)
                os._exit(0 if found == str(os.getpid()).encode() else 1)
            except BaseException:
                os._exit(2)
        check(under_way.result() == "OK", "the parent's request was disturbed")
        mine = redis.call(*filled(one["call"], pid=os.getpid()))
        _, status = os.waitpid(child, 0)
        check(mine == str(os.getpid()).encode(), f"the parent's reply was {mine!r}")
        check(status == 0, f"the child ended with {os.waitstatus_to_exitcode(status)}")


@scenario("close")
def close(one: Scenario) -> None:
    kernel = iokernel.Kernel()
    redis = kernel.open(REDIS)
    redis.wait_ready(5)
    slow = redis(*one["slow"])
    started = time.monotonic()
    kernel.close()
    expect(slow.result, one)
    expect(lambda: redis.call("PING"), one)
    kernel.close()
    redis.close()
    redis.close()
    check((time.monotonic() - started) * 1000 < one["ends_within"], "it took too long")


@scenario("threads")
def threads(one: Scenario) -> None:
    with opened() as redis:
        ended: list[str] = []

        def run(name: str) -> None:
            asyncio.run(ask(name))
            ended.append(name)

        async def ask(name: str) -> None:
            for at in range(0, one["requests"], 100):
                numbers = [f"{name}{number}" for number in range(at, at + 100)]
                found = await asyncio.gather(*(redis(*filled(one["call"], number=number)) for number in numbers))
                assert found == [number.encode() for number in numbers], "a reply was another's"
                mine = redis.call(*filled(one["call"], number=name))
                assert mine == name.encode(), "a blocking reply was another's"

        running = [threading.Thread(target=run, args=[name]) for name in "ab"]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join(60)
        check(sorted(ended) == ["a", "b"], f"of the threads a and b ended well: {ended}")


@scenario("loops")
def loops(one: Scenario) -> None:
    async def ask(number: int) -> None:
        found = await redis(*filled(one["call"], number=number))
        check(found == str(number).encode(), f"{found!r}: expected {number}")

    def open_files() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    with opened() as redis:
        asyncio.run(ask(0))
        before = open_files()
        for number in range(one["rounds"]):
            asyncio.run(ask(number))
        check(open_files() <= before, f"{before} descriptors became {open_files()}")


@scenario("idle")
def idle(one: Scenario) -> None:
    async def rest() -> float:
        async with redis.subscribe("SUBSCRIBE", "s:idle"):
            await redis("PING")
            started = time.process_time()
            await asyncio.sleep(one["idle"] / 1000)
            return 1000 * (time.process_time() - started)

    with opened() as redis:
        used = asyncio.run(rest())
        check(used <= one["cpu_at_most"], f"{used:.1f} ms of CPU time")


class Hanging:
    """A kernel with an admin endpoint, and somebody else who asks it while we hang in one C call."""

    def __init__(self, path: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="iok-scenario-")
        socket = f"{self._folder.name}/admin"
        self.kernel = iokernel.Kernel(admin=f"unix:{socket}")
        self._ask = f"sleep 0.3; curl -s -m 10 --unix-socket {socket} http://localhost{path}"

    def said(self, hang_ms: float) -> str:
        """What it answered while we hung: so long at least, and until it had answered."""
        ask = f"{self._ask}; sleep {max(hang_ms - 300, 0) / 1000}; kill -ALRM $PPID"
        with open(f"{self._folder.name}/said", "w+") as said:  # a pipe that nobody reads would be full
            with subprocess.Popen(["sh", "-c", ask], stdout=said):
                check(hang_in_here(15), "no answer came while the program hung")
            said.seek(0)
            return said.read()

    def __enter__(self) -> Hanging:
        return self

    def __exit__(self, *_: object) -> None:
        self.kernel.close()
        self._folder.cleanup()


class Over(Exception):
    """The time is."""


def hang_in_here(seconds_max: float) -> bool:
    """One C call that computes and gives nobody the GIL: a search that goes astray, until somebody's alarm ends it.

    False if it was our own, because the time was over.
    """

    def over(*_: object) -> None:
        raise Over

    signal.signal(signal.SIGALRM, over)
    with contextlib.suppress(Over):
        signal.setitimer(signal.ITIMER_REAL, seconds_max)
        re.match("(a+)+b", "a" * 100)
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)  # somebody's may still come
    return left > 0


@scenario("stack-while-hung")
def stack_while_hung(one: Scenario) -> None:
    with Hanging(one["path"]) as hanging:
        said = json.loads(hanging.said(one["hang"]))
        functions = [frame["function"] for frame in said["main"]["python"]]
        check("hang_in_here" in functions, functions)


@scenario("counters")
def counters(one: Scenario) -> None:
    with Hanging(one["path"]) as hanging:
        hanging.kernel.counter(one["counter"]).inc(one["add"])
        lines = hanging.said(1000).splitlines()
        check(one["line"] in lines, [line for line in lines if one["counter"] in line])


@scenario("markers")
def markers(one: Scenario) -> None:
    with Hanging(one["path"]) as hanging, hanging.kernel.marker(one["marker"]):
        main = json.loads(hanging.said(1000))["main"]
        check(one["marker"] in json.dumps(main["markers"]), main)


if __name__ == "__main__":
    sys.exit(main())
