"""An ASGI application for tests of who talks to it: uploads, downloads, streams, events, WebSockets, hangs.

    Served("from support.http_app import app")

===========================  =====================================================================================
/bytes?size=                 so many bytes of `BLOCK` again and again, with a Content-Length
/pieces?count=&size=         so many pieces of so many bytes, without one
/gated                       a piece at once, another after somebody asked for /open
/events?count=               so many server-sent events
/status/204                  that status, with a body whether it may have one or not
/slow?ms=                    an answer after a while
/hang?s=                     an answer after a C call that gave nobody the GIL for so long
/chat                        a WebSocket that sends back what comes; "close" has it closed with 4001
/page                        a page of HTML
/counts                      how many requests began, and how many of /pieces are `open`, as JSON
any other                    what was asked, as JSON: method, target, headers, size and SHA-256 of the body
===========================  =====================================================================================
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from .hang import hang

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PIECE_BYTES = 64 << 10
PAGE = b"<!doctype html><title>page</title><p>here"
COUNTS = {"requests": 0, "open": 0}
gate = asyncio.Event()


BLOCK = b"".join(number.to_bytes(4, "little") for number in range(1 << 18))
"""1 MiB in which no two places look alike: what is lost or doubled shows."""


def digest_of(size: int) -> str:
    """SHA-256 of what /bytes sends."""
    made = hashlib.sha256()
    while size > 0:
        made.update(BLOCK[: min(size, len(BLOCK))])
        size -= len(BLOCK)
    return made.hexdigest()


async def app(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    if scope["type"] == "websocket":
        return await chat(scope, receive, send)
    COUNTS["requests"] += 1
    query = {key: values[0] for key, values in parse_qs(scope["query_string"].decode()).items()}
    path = scope["path"]
    if path.startswith("/status/"):
        return await whole(send, b"a body\n", status=int(path.rpartition("/")[2]))
    handler = HANDLERS.get(path)
    if handler is None:
        return await tell(scope, receive, send)
    return await handler(send, query)


async def lifespan(receive: Receive, send: Send) -> None:
    kind = ""
    while kind != "lifespan.shutdown":
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})


async def begin(send: Send, status: int = 200, kind: str = "text/plain", length: int | None = None) -> None:
    headers = [(b"content-type", kind.encode())]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def piece(send: Send, data: bytes, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def whole(send: Send, body: bytes, status: int = 200, kind: str = "text/plain") -> None:
    await begin(send, status, kind)
    await piece(send, body, more=False)


async def tell(scope: Message, receive: Receive, send: Send) -> None:
    size, made, more = 0, hashlib.sha256(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        data, more = message["body"], message["more_body"]
        size += len(data)
        made.update(data)
    target = scope["raw_path"].decode("latin-1")
    if scope["query_string"]:
        target += "?" + scope["query_string"].decode("latin-1")
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
    told = {"method": scope["method"], "target": target, "headers": headers, "size": size, "sha256": made.hexdigest()}
    told |= {"client": scope["client"], "version": scope["http_version"]}
    await whole(send, json.dumps(told).encode(), kind="application/json")


async def some_bytes(send: Send, query: dict[str, str]) -> None:
    size = int(query["size"])
    await begin(send, length=size)
    sent = 0
    while sent < size:
        at = sent % len(BLOCK)
        data = BLOCK[at : at + min(PIECE_BYTES, size - sent)]
        sent += len(data)
        await piece(send, data)
    await piece(send, b"", more=False)


async def pieces(send: Send, query: dict[str, str]) -> None:
    await begin(send)
    COUNTS["open"] += 1
    try:
        for _ in range(int(query["count"])):
            await piece(send, b"x" * int(query["size"]))
        await piece(send, b"", more=False)
    finally:
        COUNTS["open"] -= 1


async def gated(send: Send, query: dict[str, str]) -> None:
    gate.clear()
    await begin(send)
    await piece(send, b"first\n")
    await gate.wait()
    await piece(send, b"second\n", more=False)


async def open_gate(send: Send, query: dict[str, str]) -> None:
    gate.set()
    await whole(send, b"open\n")


async def events(send: Send, query: dict[str, str]) -> None:
    await begin(send, kind="text/event-stream")
    for number in range(int(query["count"])):
        await piece(send, b"id: %d\ndata: event %d\n\n" % (number, number))
    await piece(send, b"", more=False)


async def slow(send: Send, query: dict[str, str]) -> None:
    await asyncio.sleep(float(query["ms"]) / 1000)
    await whole(send, b"slow\n")


async def hanging(send: Send, query: dict[str, str]) -> None:
    await whole(send, b"%f\n" % hang(float(query["s"])))


async def page(send: Send, query: dict[str, str]) -> None:
    await whole(send, PAGE, kind="text/html")


async def counts(send: Send, query: dict[str, str]) -> None:
    await whole(send, json.dumps(COUNTS).encode(), kind="application/json")


HANDLERS = {
    "/bytes": some_bytes,
    "/pieces": pieces,
    "/gated": gated,
    "/open": open_gate,
    "/events": events,
    "/slow": slow,
    "/hang": hanging,
    "/page": page,
    "/counts": counts,
}


async def chat(scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    protocols = scope["subprotocols"]
    await send({"type": "websocket.accept", "subprotocol": protocols[0] if protocols else None})
    while (message := await receive())["type"] == "websocket.receive":
        text, data = message.get("text"), message.get("bytes")
        if text == "close":
            return await send({"type": "websocket.close", "code": 4001, "reason": "as you wish"})
        await send({"type": "websocket.send", "text": text, "bytes": data})
    return None
