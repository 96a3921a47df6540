"""We serve: real clients of the protocol connect to us."""

from __future__ import annotations

import asyncio
import shutil
import socket
import struct
import subprocess
import threading
from contextlib import AbstractContextManager
from typing import Any

import iokernel
import pytest
from support import listening
from support.resp import Resp


def address(listener: iokernel.Listener) -> str:
    return listener.url.removeprefix("redis://")


def serving(handler: Any) -> AbstractContextManager[iokernel.Listener]:
    return listening.serving(handler, "redis://127.0.0.1:0")


def test_values_of_every_type() -> None:
    values: list[Any] = [None, True, 1, -(2**70), 1.5, "text", b"bytes", [1, ["a"]], {"a": 1}, {1, 2}]

    with serving(lambda request: values[int(request.args[1])]) as listener, iokernel.open(listener.url) as client:
        got = [client.call("VALUE", index, timeout=5) for index in range(len(values))]
        for value, reply in zip(values, got, strict=True):
            expected = (
                {"text": "text", b"bytes": b"bytes"}.get(value, value) if isinstance(value, (str, bytes)) else value
            )
            if isinstance(value, list):
                assert reply in ([1, ["a"]], [1, [b"a"]])
            elif isinstance(value, dict):
                assert reply in ({"a": 1}, {b"a": 1})
            else:
                assert reply == expected or reply == str(expected).encode()


def test_errors() -> None:
    def handler(request: iokernel.Request) -> Any:
        if request.args[0] == b"TEAPOT" or request.args[0] == "TEAPOT":
            raise iokernel.RemoteError("short and stout", code="TEAPOT")
        raise RuntimeError("secret")

    with serving(handler) as listener, iokernel.open(listener.url) as client:
        with pytest.raises(iokernel.RemoteError) as caught:
            client.call("TEAPOT", timeout=5)
        assert (caught.value.code, caught.value.message) == ("TEAPOT", "short and stout")
        with pytest.raises(iokernel.RemoteError) as hidden:
            client.call("OTHER", timeout=5)
        assert "secret" not in str(hidden.value)


def test_redis_cli() -> None:
    cli = shutil.which("redis-cli")
    if cli is None:
        pytest.skip("redis-cli is not installed (Debian: redis-tools)")
    with serving(lambda request: request.args) as listener:
        port = listener.url.rpartition(":")[2]
        done = subprocess.run([cli, "-p", port, "ECHOES", "a", "b"], capture_output=True, timeout=10, check=True)
        assert done.stdout.split() == [b"ECHOES", b"a", b"b"]


def test_iteration_and_replies_from_other_threads() -> None:
    with iokernel.listen("redis://127.0.0.1:0") as listener:

        def client() -> None:
            with Resp(address(listener)) as conn:
                got.append(conn("ADD", "1", "2"))

        got: list[Any] = []
        thread = threading.Thread(target=client)
        thread.start()
        request = next(iter(listener))
        assert [part if isinstance(part, bytes) else part.encode() for part in request.args] == [b"ADD", b"1", b"2"]
        answering = threading.Thread(target=request.reply, args=(3,))
        answering.start()
        answering.join()
        thread.join(5)
        assert got == [3]
        request.reply(4)


def test_close_from_another_thread() -> None:
    listener = iokernel.listen("redis://127.0.0.1:0")
    threading.Timer(0.1, listener.close).start()
    assert list(listener) == []
    assert listener.closed


async def test_async_iteration() -> None:
    async with iokernel.listen("redis://127.0.0.1:0") as listener, iokernel.open(listener.url) as client:
        asked = [client("GET", index) for index in range(10)]
        async for request in listener:
            request.reply(int(request.args[1]) * 2)
            if int(request.args[1]) == 9:
                break
        assert await asyncio.gather(*asked) == [index * 2 for index in range(10)]


async def test_async_serve_answers_side_by_side() -> None:
    async def handler(request: iokernel.Request) -> Any:
        await asyncio.sleep(0.05)
        return request.args[1]

    async with iokernel.listen("redis://127.0.0.1:0") as listener, iokernel.open(listener.url) as client:
        server = asyncio.ensure_future(listener.serve(handler))
        start = asyncio.get_running_loop().time()
        replies = await asyncio.gather(*(client("GET", str(index)) for index in range(50)))
        assert asyncio.get_running_loop().time() - start < 2
        assert [int(reply) for reply in replies] == list(range(50))
        listener.close()
        await asyncio.wait_for(server, 5)


async def test_a_client_that_leaves() -> None:
    async with iokernel.listen("redis://127.0.0.1:0") as listener:
        host, port = address(listener).split(":")
        client = socket.create_connection((host, int(port)))
        client.sendall(b"*1\r\n$4\r\nWAIT\r\n")
        request = await asyncio.wait_for(listener.__anext__(), 5)
        assert not request.gone
        # A reset: one that merely stops sending may still read.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        for _ in range(500):
            if request.gone:
                break
            await asyncio.sleep(0.01)
        assert request.gone
        request.reply("too late")


def test_wrong_urls() -> None:
    with pytest.raises(iokernel.ConfigError):
        iokernel.listen("redis://127.0.0.1:0", max_conns="many")
    with pytest.raises(iokernel.ConfigError):
        iokernel.listen("redis://no-such-host:0")
    with (
        iokernel.listen("redis://127.0.0.1:0") as listener,
        pytest.raises(iokernel.Error, match=r"in use|Address"),
    ):
        iokernel.listen(listener.url)
