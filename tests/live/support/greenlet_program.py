"""What greenlets show: `python greenlet_program.py gevent|eventlet patched|plain REDIS-URL`. Prints TAP."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    warnings.simplefilter("ignore")  # eventlet warns at its import, and of forks.
    if sys.argv[2] == "patched":
        # Before anything else is imported, as both demand.
        if sys.argv[1] == "gevent":
            from gevent import monkey  # type: ignore[import-untyped,unused-ignore]

            monkey.patch_all()
        else:
            import eventlet  # type: ignore[import-untyped,unused-ignore]

            eventlet.monkey_patch()

import _thread
import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import iokernel

from support.loop_scenarios import REQUESTS, TICK_S, tell

ROUNDS = 20
Call = Callable[[], Any]


class Gevent:
    name = "gevent"

    def __init__(self) -> None:
        import gevent  # type: ignore[import-untyped,unused-ignore]

        self._gevent = gevent
        self.sleep = gevent.sleep

    def begin(self, call: Call) -> Any:
        """Runs it beside. `end(...)` ends it."""
        return self._gevent.spawn(call)

    def end(self, greenlet: Any) -> None:
        greenlet.kill()

    def together(self, calls: list[Call]) -> None:
        self._gevent.joinall([self._gevent.spawn(call) for call in calls], raise_error=True)

    def is_cut_off(self, seconds: float, call: Call) -> bool:
        with self._gevent.Timeout(seconds, False):
            call()
            return False
        return True

    def forget_hub(self) -> None:
        """Ends the hub of this thread: the next use makes another."""
        self._gevent.get_hub().destroy(destroy_loop=True)

    def native_thread(self, call: Call) -> None:
        """Runs it in a thread of the system's, with a hub of its own, and waits for it."""
        self._gevent.get_hub().threadpool.apply(call)

    def fork(self) -> int:
        return int(self._gevent.os.fork_and_watch())

    def is_over(self, child: int) -> bool:
        return bool(self._gevent.os.waitpid(child, os.WNOHANG)[0])


class Eventlet:
    name = "eventlet"

    def __init__(self) -> None:
        import eventlet  # type: ignore[import-untyped,unused-ignore]
        import eventlet.hubs  # type: ignore[import-untyped,unused-ignore]
        import eventlet.tpool  # type: ignore[import-untyped,unused-ignore]

        self._eventlet: Any = eventlet
        self.sleep = eventlet.sleep

    def begin(self, call: Call) -> Any:
        return self._eventlet.spawn(call)

    def end(self, greenlet: Any) -> None:
        greenlet.kill()

    def together(self, calls: list[Call]) -> None:
        for greenlet in [self._eventlet.spawn(call) for call in calls]:
            greenlet.wait()

    def is_cut_off(self, seconds: float, call: Call) -> bool:
        with self._eventlet.Timeout(seconds, False):
            call()
            return False
        return True

    def forget_hub(self) -> None:
        del self._eventlet.hubs._threadlocal.hub

    def native_thread(self, call: Call) -> None:
        self._eventlet.tpool.execute(call)

    def fork(self) -> int:
        return os.fork()

    def is_over(self, child: int) -> bool:
        return os.waitpid(child, os.WNOHANG) != (0, 0)


def many(db: iokernel.Endpoint, tools: Any) -> str:
    """Ten thousand greenlets with a request each: each has its own reply, and a timer of the hub goes on."""
    late: list[float] = []

    def tick() -> None:
        while True:
            due = time.perf_counter() + TICK_S
            tools.sleep(TICK_S)
            late.append(time.perf_counter() - due)

    def ask(number: int) -> Call:
        def call() -> None:
            assert db.call("ECHO", number) == b"%d" % number

        return call

    ticking = tools.begin(tick)
    tools.sleep(2 * TICK_S)
    began = time.perf_counter()
    tools.together([ask(number) for number in range(REQUESTS)])
    took = time.perf_counter() - began
    tools.sleep(2 * TICK_S)
    tools.end(ticking)
    assert len(late) >= 3, late
    assert max(late) < 5, late
    assert len(clients(db)) <= 2, clients(db)
    return f"{REQUESTS / took:,.0f} requests/s, timer at most {max(late) * 1000:.0f} ms late, {len(late)} ticks"


def clients(db: iokernel.Endpoint) -> list[str]:
    rows: list[str] = db.call("CLIENT", "LIST").splitlines()
    return rows


def futures(db: iokernel.Endpoint, tools: Any) -> None:
    """What `db(...)` gives is waited for in a greenlet, also by several."""
    waiting = db("BLPOP", f"futures:{tools.name}", 0)
    assert not waiting.done()
    seen: list[Any] = []
    greenlets = [tools.begin(lambda: seen.append(waiting.result(5))) for _ in range(3)]
    tools.sleep(0.02)
    db.call("RPUSH", f"futures:{tools.name}", "x")
    assert waiting.result(5)[1] == b"x"
    tools.sleep(0.02)
    assert len(seen) == len(greenlets) == 3, seen
    slow = db("BLPOP", f"futures:{tools.name}", 0)
    try:
        slow.result(0.05)
    except iokernel.Timeout:
        pass
    else:
        raise AssertionError("no timeout")
    ended: list[Any] = []

    def wait() -> None:
        try:
            slow.result()
        except iokernel.Cancelled as error:
            ended.append(error)

    sleeper = tools.begin(wait)
    tools.sleep(0.02)
    assert slow.cancel() and slow.cancelled()
    tools.sleep(0.02)
    assert ended and sleeper.dead, "who waits for it is told"


def idle(db: iokernel.Endpoint, tools: Any) -> str:
    """With a connection open, a subscription standing and a greenlet that waits, the program uses no CPU time."""
    with db.subscribe("SUBSCRIBE", f"idle:{tools.name}") as news:
        waiting = tools.begin(news.get)
        tools.sleep(0.05)
        before = time.process_time()
        tools.sleep(1)
        used_ms = (time.process_time() - before) * 1000
        tools.end(waiting)
    assert used_ms < 20, used_ms
    return f"{used_ms:.1f} ms in a second"


def cancel(db: iokernel.Endpoint, tools: Any) -> None:
    """A greenlet that is cut off or killed while it waits ends its request; the next one has its own reply."""
    key = f"cancel:{tools.name}"
    assert tools.is_cut_off(0.1, lambda: db.call("BLPOP", key, 0))
    killed = tools.begin(lambda: db.call("BLPOP", key, 0))
    tools.sleep(0.05)
    tools.end(killed)
    deadline = time.monotonic() + 5
    while any("cmd=blpop" in row for row in clients(db)):
        assert time.monotonic() < deadline
        tools.sleep(0.02)
    assert db.call("RPUSH", key, "x") == 1
    assert db.call("LLEN", key) == 1
    assert db.call("ECHO", "mine") == b"mine"


def timeout(db: iokernel.Endpoint, tools: Any) -> None:
    """A deadline ends the request, and its late reply is nobody's."""
    key = f"timeout:{tools.name}"
    try:
        db.call("BLPOP", key, 0, timeout=0.1)
    except iokernel.Timeout as error:
        assert error.fate == "maybe_executed", error
    else:
        raise AssertionError("no timeout")
    assert db.call("RPUSH", key, "x") == 1
    assert db.call("LLEN", key) == 1


def subscription(db: iokernel.Endpoint, tools: Any) -> None:
    """Every message in order, while another greenlet publishes; waiting for the next one may take too long."""
    channel = f"news:{tools.name}"
    with db.subscribe("SUBSCRIBE", channel) as news:

        def publish() -> None:
            for number in range(1000):
                db.call("PUBLISH", channel, number)

        publisher = tools.begin(publish)
        seen = [int(next(news)[-1]) for _ in range(1000)]
        assert seen == list(range(1000))
        try:
            news.get(0.05)
        except iokernel.Timeout:
            pass
        else:
            raise AssertionError("no timeout")
        tools.end(publisher)
        reader = tools.begin(lambda: list(news))
        tools.sleep(0.02)
        news.close()
        tools.sleep(0.02)
        assert reader.dead


def lease(db: iokernel.Endpoint, tools: Any) -> None:
    """A connection of one's own; greenlets that wait for one are served as others give theirs back."""
    key = f"lease:{tools.name}"
    db.call("SET", key, 0)
    with iokernel.open(db._url, lanes=2) as small:

        def work() -> None:
            with small.lease(timeout=10) as conn:
                while True:
                    conn.call("WATCH", key)
                    value = int(conn.call("GET", key))
                    tools.sleep(0.001)
                    conn.call("MULTI")
                    conn.call("SET", key, value + 1)
                    if conn.call("EXEC") is not None:
                        return

        tools.together([work] * 10)
        for _ in range(10):

            def take() -> None:
                with small.lease():
                    tools.sleep(5)

            tools.is_cut_off(0.002, take)
        tools.together([work] * 4)
    assert db.call("GET", key) == b"14"


def lost(db: iokernel.Endpoint, tools: Any) -> None:
    """The connection is killed under a request: its error says what is known, and the next one works."""
    with db.lease() as conn:
        number = conn.call("CLIENT", "ID")

        def kill() -> None:
            tools.sleep(0.05)
            assert db.call("CLIENT", "KILL", "ID", number) == 1

        def wait() -> None:
            try:
                conn.call("BLPOP", f"lost:{tools.name}", 0)
            except iokernel.ConnectionLost as error:
                assert error.fate == "maybe_executed", error
            else:
                raise AssertionError("not lost")

        tools.together([kill, wait])
    assert db.call("ECHO", "again") == b"again"


def others_go_on(db: iokernel.Endpoint, tools: Any) -> None:
    """While greenlets wait for replies, leases, messages, endpoints and requests, one that counts goes on counting."""
    count = 0

    def counting() -> None:
        nonlocal count
        while True:
            count += 1
            tools.sleep(0.005)

    nowhere = iokernel.open("redis://127.0.0.1:1")

    def unreachable() -> None:
        with contextlib.suppress(iokernel.Unavailable):
            nowhere.wait_ready(0.2)

    news = db.subscribe("SUBSCRIBE", f"others:{tools.name}")

    def message() -> None:
        with contextlib.suppress(iokernel.Timeout):
            news.get(0.2)

    counter = tools.begin(counting)
    for call in (lambda: db.call("BLPOP", f"others:{tools.name}", 0.2), unreachable, message):
        before = count
        call()
        assert count - before >= 5, (call, count - before)
    tools.end(counter)
    news.close()
    nowhere.close()


def large(db: iokernel.Endpoint, tools: Any) -> None:
    """Values larger than the ring, side by side, and further ahead than it holds."""
    values = [bytes([65 + at]) * (3 << 20) for at in range(4)]

    def there_and_back(at: int) -> Call:
        def call() -> None:
            key = f"large:{tools.name}:{at}"
            db.call("SET", key, values[at])
            assert db.call("GET", key) == values[at]
            db.call("DEL", key)

        return call

    tools.together([there_and_back(at) for at in range(4)])
    futures = [db("ECHO", b"%06d" % at + b"x" * 4000) for at in range(4000)]
    assert [int(future.result(20)[:6]) for future in futures] == list(range(4000))


def exchange(db: iokernel.Endpoint, tools: Any) -> None:
    """A stream of HTTP is read and written by greenlets, and a listener serves in one."""
    web = iokernel.listen("http://127.0.0.1:0")

    def serve() -> None:
        for request in web:
            body = b"".join(request) if request.args[1] is True else b""
            request.begin([200, {}, True])
            for _ in range(3):
                request.send(body or b"hello")
                tools.sleep(0.01)
            request.finish()

    server = tools.begin(serve)
    tools.sleep(0.01)
    with iokernel.http.open(web.url) as api:

        def get() -> None:
            with api.stream("GET", "/") as reply:
                assert b"".join(reply) == b"hello" * 3

        tools.together([get] * 3)
        assert api.get("/").body == b"hello" * 3
    web.close()
    tools.sleep(0.3)
    assert server.dead


def fork(db: iokernel.Endpoint, tools: Any) -> None:
    """A forked child opens its own; the parent notices nothing, and keeps its subscription."""
    with db.subscribe("SUBSCRIBE", f"fork:{tools.name}") as news:
        child = tools.fork()
        if child == 0:
            in_child(db)
        deadline = time.monotonic() + 20
        asked = 0
        while not tools.is_over(child):
            assert db.call("ECHO", asked) == b"%d" % asked
            asked += 1
            tools.sleep(0.01)
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                raise AssertionError("the child hangs")
        assert db.call("GET", f"child:{child}") == b"was here"
        db.call("PUBLISH", f"fork:{tools.name}", "parent")
        assert news.get(5)[-1] == b"parent"
        before = time.process_time()
        tools.sleep(0.5)
        assert time.process_time() - before < 0.1, "the parent's hub spins"


def in_child(db: iokernel.Endpoint) -> None:
    code = 1
    try:
        assert db.call("ECHO", "child", timeout=5) == b"child"
        assert db("SET", f"child:{os.getpid()}", "was here").result(5) == "OK"
        before = time.process_time()
        assert db.call("BLPOP", "nothing", 0.2) is None
        assert time.process_time() - before < 0.1
        code = 0
    finally:
        os._exit(code)


def reopened(db: iokernel.Endpoint, tools: Any) -> None:
    """Hubs one after the other in one thread: each works, and nothing of those before is left."""

    def once() -> None:
        assert db.call("PING") == "PONG"
        tools.together([lambda: db.call("PING")] * 3)

    once()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(ROUNDS):
        tools.forget_hub()
        once()
    left = len(os.listdir("/proc/self/fd")) - before
    # eventlet's hubs keep an epoll of their own until they are collected.
    assert left <= (ROUNDS + 3 if tools.name == "eventlet" else 3), left


def threads(db: iokernel.Endpoint, tools: Any) -> None:
    """Another thread of the system's, with its own hub or none, at the same time."""
    key = f"threads:{tools.name}"

    def work() -> None:
        for _ in range(500):
            db.call("INCR", key)

    tools.together([lambda: tools.native_thread(work), work])
    assert db.call("GET", key) == b"1000"


def hub_itself(db: iokernel.Endpoint, tools: Any) -> None:
    """In a callback of the hub nobody can give way: there it blocks, and works."""
    seen: list[Any] = []
    hub = __import__(f"iokernel.loops.{tools.name}").loops
    own = getattr(hub, tools.name).hub()
    own.soon(lambda: seen.append(db.call("ECHO", "in the hub")))
    tools.sleep(0.05)
    deadline = time.monotonic() + 5
    while not seen and time.monotonic() < deadline:
        tools.sleep(0.01)
    assert seen == [b"in the hub"], seen


def asked_before_the_hub(db: iokernel.Endpoint, tools: Any) -> None:
    """A future of a thread in which no hub ran yet is good in one that does."""
    done: list[Any] = []
    failed: list[BaseException] = []

    def thread() -> None:
        try:
            future = db("BLPOP", f"before:{tools.name}", 0.1)
            tools.sleep(0.01)
            done.append(future.result(5))
        except BaseException as error:
            failed.append(error)
        finally:
            done.append("over")

    _thread.start_new_thread(thread, ())
    while "over" not in done:
        tools.sleep(0.01)
    assert done == [None, "over"], (done, failed)


def main() -> None:
    name, _, url, *wanted = sys.argv[1:]
    tools: Any = {"gevent": Gevent, "eventlet": Eventlet}[name]()
    with iokernel.open(url) as db:
        for one in SCENARIOS:
            if wanted and one.__name__ not in wanted:
                continue
            try:
                note = one(db, tools)
            except Exception as error:
                tell(one.__name__, error)
            else:
                tell(one.__name__, note)


SCENARIOS: list[Callable[[iokernel.Endpoint, Any], str | None]] = [
    many,
    futures,
    idle,
    cancel,
    timeout,
    subscription,
    lease,
    lost,
    others_go_on,
    large,
    exchange,
    hub_itself,
    asked_before_the_hub,
    reopened,
    threads,
    fork,
]


if __name__ == "__main__":
    main()
