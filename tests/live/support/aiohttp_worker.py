"""A web server of aiohttp's: `AiohttpServer`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from aiohttp import WSMsgType, web

from . import worker

COUNTS = {"uploaded": 0, "streamed": 0, "open": 0}


@contextlib.contextmanager
def counted() -> Iterator[None]:
    COUNTS["open"] += 1
    try:
        yield
    finally:
        COUNTS["open"] -= 1


async def upload(request: web.Request) -> web.Response:
    COUNTS["uploaded"] = 0
    async for piece in request.content.iter_any():
        COUNTS["uploaded"] += len(piece)
        await asyncio.sleep(float(request.query.get("pause", 0)))
    return web.json_response({"bytes": COUNTS["uploaded"], "type": request.content_type})


async def stream(request: web.Request) -> web.StreamResponse:
    """So many pieces of so many bytes; for ever if nobody says how many."""
    response = web.StreamResponse()
    await response.prepare(request)
    piece = b"x" * int(request.query.get("size", 65536))
    COUNTS["streamed"] = 0
    with contextlib.suppress(ConnectionError), counted():
        left = int(request.query.get("count", 1 << 30))
        while left:
            left -= 1
            await response.write(piece)
            COUNTS["streamed"] += len(piece)
    return response


async def duplex(request: web.Request) -> web.StreamResponse:
    """Answers each piece as it comes, in upper case."""
    response = web.StreamResponse()
    await response.prepare(request)
    async for piece in request.content.iter_any():
        await response.write(piece.upper())
    return response


async def chat(request: web.Request) -> web.WebSocketResponse:
    heartbeat = float(request.query.get("heartbeat", 0)) or None
    socket = web.WebSocketResponse(protocols=("chat.v2", "chat.v1"), max_msg_size=1 << 26, heartbeat=heartbeat)
    await socket.prepare(request)
    with counted():
        async for message in socket:
            if message.data == "close":
                await socket.close(code=4001, message=b"as you wish")
            elif message.data == "abort":
                assert request.transport is not None
                request.transport.abort()
            elif message.type == WSMsgType.TEXT:
                await socket.send_str(message.data)
            else:
                await socket.send_bytes(message.data)
    COUNTS["close_code"] = socket.close_code or 0
    return socket


async def echo(request: web.Request) -> web.Response:
    return web.json_response(
        {
            "method": request.method,
            "target": request.raw_path,
            "headers": [list(pair) for pair in request.headers.items()],
        }
    )


async def main() -> None:
    app = web.Application(client_max_size=1 << 30)
    for path, handler in (("/upload", upload), ("/stream", stream), ("/duplex", duplex), ("/chat", chat)):
        app.router.add_route("*", path, handler)
    app.router.add_route("*", "/{rest:.*}", echo)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address: Any = runner.addresses[0]
    await worker.obey(lambda: f"127.0.0.1:{address[1]}", lambda order: COUNTS)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
