"""requests and httpx over the kernel: many threads, many tasks, and a main thread that hangs in a C call."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import iokernel
import iokernel.compat.httpx
import iokernel.compat.requests
import pytest
from support.aiohttp_server import AiohttpServer
from support.fakes import Say
from support.http_script import HttpScript, ok
from support.net import wait_for
from support.program import Program


@pytest.fixture
def site() -> Iterator[AiohttpServer]:
    with AiohttpServer() as made:
        yield made


@pytest.fixture
def server() -> Iterator[HttpScript]:
    with HttpScript({"/hi": ok(b"hello"), "/wait": Say(ok(b"done"), wait_ms=100)}) as made:
        yield made


def test_a_hundred_threads_share_a_session(server: HttpScript) -> None:
    failures: list[BaseException] = []
    with iokernel.compat.requests.Session() as session:

        def work(number: int) -> None:
            try:
                for turn in range(10):
                    told = session.post(f"{server.url}/echo?{number}.{turn}", data=str(number)).json()
                    assert told["target"] == f"/echo?{number}.{turn}"
                assert session.get(server.url + "/hi", stream=True).raw.read() == b"hello"
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not failures and not any(thread.is_alive() for thread in threads)
    assert len(server.asked()) == 1100
    assert server.conns() <= 100


async def test_a_thousand_tasks_share_a_client(server: HttpScript) -> None:
    limits = httpx.Limits(max_connections=None)
    async with iokernel.compat.httpx.AsyncClient(limits=limits, timeout=60) as client:
        replies = await asyncio.gather(*(client.get(server.url + "/wait") for _ in range(1000)))
        assert {reply.text for reply in replies} == {"done"}
    limits = httpx.Limits(max_connections=10)
    server.forget()
    async with iokernel.compat.httpx.AsyncClient(limits=limits, timeout=60) as client:
        await asyncio.gather(*(client.get(server.url + "/hi") for _ in range(200)))
        assert server.conns() <= 10


async def test_a_client_waits_for_its_place_no_longer_than_it_says(server: HttpScript) -> None:
    options = {"limits": httpx.Limits(max_connections=1), "timeout": httpx.Timeout(5, pool=0.05)}
    async with iokernel.compat.httpx.AsyncClient(**options) as client:
        async with client.stream("GET", server.url + "/hi"):
            with pytest.raises(httpx.PoolTimeout):
                await client.get(server.url + "/hi")
        assert (await client.get(server.url + "/hi")).text == "hello"
    with iokernel.compat.httpx.Client(**options) as client:
        with client.stream("GET", server.url + "/hi"), pytest.raises(httpx.PoolTimeout):
            client.get(server.url + "/hi")
        assert client.get(server.url + "/hi").text == "hello"


def test_a_client_is_used_in_several_loops(server: HttpScript) -> None:
    client = iokernel.compat.httpx.AsyncClient()

    async def get() -> str:
        return (await client.get(server.url + "/hi")).text

    assert [asyncio.run(get()) for _ in range(3)] == ["hello"] * 3


HANGS = """
import json, sys
import iokernel, iokernel.compat.requests
from support.hang import hang

script, site = sys.argv[1:]
session = iokernel.compat.requests.Session()
session.get(script + "/hi")
stream = session.get(site + "/stream", stream=True)
pieces = stream.iter_content(10_000)
next(pieces)
chat = iokernel.open(site).websocket("/chat?heartbeat=1")
print(json.dumps({"ready": True}), flush=True)
sys.stdin.readline()
took = hang(4)
chat.send("still there?")
answer = chat.receive(10)
read = 0
while read < 10_000_000:
    read += len(next(pieces))
stream.close()
print(json.dumps({"took": took, "answer": answer, "read": read, "again": session.get(script + "/hi").text}), flush=True)
"""


def test_connections_live_on_while_the_program_hangs(server: HttpScript, site: AiohttpServer) -> None:
    with Program(HANGS, server.url, site.url) as program:
        program.hear()
        conns = server.conns()
        program.go_on()
        time.sleep(2)
        assert (server.open_conns(), site.counts()["open"]) == (conns, 2)
        streamed = site.counts()["streamed"]
        # The window, and what the system's sockets hold.
        assert streamed < 32 << 20
        told = program.hear()
        assert told["took"] >= 3.5
        assert (told["answer"], told["read"] >= 10_000_000, told["again"]) == ("still there?", True, "hello")
        assert server.conns() == conns
        wait_for("the end of the stream", lambda: site.counts()["open"] <= 1)


FORKS = """
import os, pickle, sys
import httpx
import iokernel.compat.httpx, iokernel.compat.requests

url = sys.argv[1]
session, client = iokernel.compat.requests.Session(), iokernel.compat.httpx.Client()
assert session.get(url + "/hi").text == client.get(url + "/hi").text == "hello"
again = pickle.loads(pickle.dumps(session))
assert again.get(url + "/hi").text == "hello"
pid = os.fork()
if pid == 0:
    os._exit(0 if session.get(url + "/hi").text == client.get(url + "/hi").text == "hello" else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert session.get(url + "/hi").text == client.get(url + "/hi").text == "hello"
for one in (session, again, client):
    one.close()
print("ok")
"""


def test_sessions_are_forked_and_pickled(server: HttpScript, script: Callable[..., str]) -> None:
    assert script(FORKS, server.url) == "ok\n"


def test_what_was_not_read_is_let_go(server: HttpScript, site: AiohttpServer) -> None:
    """Responses that nobody closes give back their connection, their place and their endpoint."""
    with iokernel.compat.httpx.Client(limits=httpx.Limits(max_connections=2)) as client:
        for _ in range(10):
            reply = client.send(client.build_request("GET", site.url + "/stream"), stream=True)
            next(reply.iter_raw())
            del reply
            gc.collect()
    with iokernel.compat.requests.Session() as session:
        for _ in range(10):
            next(session.get(site.url + "/stream", stream=True).iter_content(10))
            gc.collect()
    wait_for("the end of all streams", lambda: site.counts()["open"] == 0)
    del session, client
    gc.collect()
    urls = [one["url"] for one in iokernel.default_kernel().state["endpoints"]]
    assert site.url not in urls
