"""HTTP clients against nginx: 100 GETs at the same time, and one after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from harness import Bench, Row, Sample, timed_rate, versus
from support.nginx import Nginx

TASKS = 100
BODY = "x" * 100
INSIDE = f'keepalive_requests 1000000000; location / {{ return 200 "{BODY}"; }}'
# So many rounds of TASKS requests that each side takes about half a second.
ROUNDS = {"iokernel": 150, "aiohttp": 40, "httpx": 4, "compat": 10, "pycurl": 150}
ONE_BY_ONE = {"iokernel": 3000, "requests": 400, "httpx": 400, "pycurl": 3000}


async def crowd(one: Callable[[], Awaitable[Any]], rounds: int) -> Sample:
    """All tasks at once, each asking one time after another."""

    async def task() -> None:
        for _ in range(rounds):
            await one()

    tasks = [asyncio.create_task(task()) for _ in range(TASKS)]
    started = time.perf_counter()
    await asyncio.gather(*tasks)
    return timed_rate(TASKS * rounds, started)


def factory(loop: str) -> Any:
    if loop == "asyncio":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop


def iokernel(url: str, how: str = "get", loop: str = "uvloop", **_: Any) -> Iterator[Sample]:
    import iokernel.http

    api = iokernel.http.open(url)
    api.wait_ready(5)

    async def get() -> None:
        reply = await api.get("/", decode=False)
        if reply.status != 200 or len(reply.body) != 100:
            raise AssertionError(reply)

    async def call() -> None:
        reply = await api("GET", "/")
        if reply[0] != 200 or len(reply[2]) != 100:
            raise AssertionError(reply)

    with asyncio.Runner(loop_factory=factory(loop)) as runner:
        yield {}
        while True:
            yield runner.run(crowd(get if how == "get" else call, ROUNDS["iokernel"]))


def aiohttp(url: str, **_: Any) -> Iterator[Sample]:
    import aiohttp

    async def measure() -> Sample:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=TASKS)) as session:

            async def one() -> None:
                async with session.get(url + "/") as reply:
                    if len(await reply.read()) != 100:
                        raise AssertionError(reply)

            await crowd(one, 2)
            return await crowd(one, ROUNDS["aiohttp"])

    with asyncio.Runner(loop_factory=factory("uvloop")) as runner:
        yield {}
        while True:
            yield runner.run(measure())


def httpx(url: str, **_: Any) -> Iterator[Sample]:
    import httpx

    yield from crowd_of_httpx(url, httpx.AsyncClient, ROUNDS["httpx"])


def compat_httpx(url: str, **_: Any) -> Iterator[Sample]:
    import iokernel.compat.httpx

    yield from crowd_of_httpx(url, iokernel.compat.httpx.AsyncClient, ROUNDS["compat"])


def crowd_of_httpx(url: str, client: Callable[[], Any], rounds: int) -> Iterator[Sample]:
    async def measure() -> Sample:
        async with client() as session:

            async def one() -> None:
                if len((await session.get(url + "/")).content) != 100:
                    raise AssertionError(url)

            await crowd(one, 1)
            return await crowd(one, rounds)

    with asyncio.Runner(loop_factory=factory("uvloop")) as runner:
        yield {}
        while True:
            yield runner.run(measure())


def curl_multi(url: str, **_: Any) -> Iterator[Sample]:
    """libcurl's own way of many at a time: handles are taken up again as they end."""
    import pycurl

    multi = pycurl.CurlMulti()
    handles = [curl_handle(url) for _ in range(TASKS)]

    def measure(count: int) -> None:
        begun, left = 0, count
        for handle in handles:
            multi.add_handle(handle)
            begun += 1
        while left:
            while multi.perform()[0] == pycurl.E_CALL_MULTI_PERFORM:
                pass
            waiting, good, bad = multi.info_read()
            for handle in good:
                left -= 1
                multi.remove_handle(handle)
                check(handle)
                if begun < count:
                    multi.add_handle(handle)
                    begun += 1
            if bad:
                raise AssertionError(bad)
            if not good and not waiting:
                multi.select(1.0)

    measure(TASKS)
    yield {}
    while True:
        started = time.perf_counter()
        measure(TASKS * ROUNDS["pycurl"])
        yield timed_rate(TASKS * ROUNDS["pycurl"], started)


def curl_handle(url: str) -> Any:
    import pycurl

    handle = pycurl.Curl()
    handle.body = bytearray()
    handle.setopt(pycurl.URL, url + "/")
    handle.setopt(pycurl.WRITEFUNCTION, handle.body.extend)
    return handle


def check(handle: Any) -> None:
    if len(handle.body) != 100:
        raise AssertionError(handle.body)
    handle.body.clear()


def one_by_one(get: Callable[[], Any], count: int) -> Iterator[Sample]:
    get()
    yield {}
    while True:
        started = time.perf_counter()
        for _ in range(count):
            get()
        yield timed_rate(count, started)


def iokernel_one(url: str, how: str = "get", **_: Any) -> Iterator[Sample]:
    import iokernel.http

    api = iokernel.http.open(url)
    if how == "get":
        yield from one_by_one(lambda: api.get("/", decode=False).body, ONE_BY_ONE["iokernel"])
    yield from one_by_one(lambda: api.call("GET", "/")[2], ONE_BY_ONE["iokernel"])


def requests_one(url: str, **_: Any) -> Iterator[Sample]:
    import requests

    session = requests.Session()
    yield from one_by_one(lambda: session.get(url + "/").content, ONE_BY_ONE["requests"])


def compat_requests_one(url: str, **_: Any) -> Iterator[Sample]:
    import iokernel.compat.requests

    session = iokernel.compat.requests.Session()
    yield from one_by_one(lambda: session.get(url + "/").content, ONE_BY_ONE["requests"])


def httpx_one(url: str, **_: Any) -> Iterator[Sample]:
    import httpx

    client = httpx.Client()
    yield from one_by_one(lambda: client.get(url + "/").content, ONE_BY_ONE["httpx"])


def compat_httpx_one(url: str, **_: Any) -> Iterator[Sample]:
    import iokernel.compat.httpx

    client = iokernel.compat.httpx.Client()
    yield from one_by_one(lambda: client.get(url + "/").content, ONE_BY_ONE["httpx"])


def pycurl_one(url: str, **_: Any) -> Iterator[Sample]:
    handle = curl_handle(url)

    def get() -> None:
        handle.perform()
        check(handle)

    yield from one_by_one(get, ONE_BY_ONE["pycurl"])


def with_call(side: Callable[..., Iterator[Sample]], **fixed: Any) -> Callable[..., Iterator[Sample]]:
    return lambda **given: side(**given, **fixed)


SIDES = {
    "iokernel": iokernel,
    "iokernel-call": with_call(iokernel, how="call"),
    "iokernel-asyncio": with_call(iokernel, loop="asyncio"),
    "aiohttp": aiohttp,
    "httpx": httpx,
    "compat-httpx": compat_httpx,
    "curl-multi": curl_multi,
    "iokernel-one": iokernel_one,
    "iokernel-one-call": with_call(iokernel_one, how="call"),
    "requests-one": requests_one,
    "compat-requests-one": compat_requests_one,
    "httpx-one": httpx_one,
    "compat-httpx-one": compat_httpx_one,
    "pycurl-one": pycurl_one,
}


def rows(bench: Bench) -> list[Row]:
    found = bench.compare("http_clients", list(SIDES), server=lambda: Nginx(INSIDE))
    what = "HTTP, 100 at a time"
    made = []
    for name, side in (("get", "iokernel"), ("call", "iokernel-call"), ("get, asyncio's loop", "iokernel-asyncio")):
        ours = found[side]
        made.append(versus(f"{what}, {name}: aiohttp + uvloop", ours, found["aiohttp"], must=4, peer_name="aiohttp"))
        made.append(
            versus(f"{what}, {name}: CurlMulti", ours, found["curl-multi"], aim=1, must=0.5, peer_name="pycurl")
        )
    made.append(versus(f"{what}: httpx over us", found["compat-httpx"], found["httpx"], peer_name="httpx"))
    what = "HTTP, one at a time"
    for name, side in (("get", "iokernel-one"), ("call", "iokernel-one-call")):
        ours = found[side]
        made.append(versus(f"{what}, {name}: requests", ours, found["requests-one"], must=3, peer_name="requests"))
        made.append(versus(f"{what}, {name}: pycurl", ours, found["pycurl-one"], aim=1, must=0.5, peer_name="pycurl"))
    made.append(
        versus(f"{what}: requests over us", found["compat-requests-one"], found["requests-one"], peer_name="requests")
    )
    made.append(versus(f"{what}: httpx over us", found["compat-httpx-one"], found["httpx-one"], peer_name="httpx"))
    return made
