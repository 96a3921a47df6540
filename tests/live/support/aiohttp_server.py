"""A web server of aiohttp's in a process of its own: uploads, streams, WebSockets."""

from __future__ import annotations

from typing import Self

from .process import Worker


class AiohttpServer:
    """`/upload` counts what it is sent (`pause=` seconds after each piece), `/stream` sends `count=` pieces of `size=`
    bytes, `/duplex` answers in upper case as it is asked, anything else tells what it was asked.

    `/chat` is a WebSocket that sends back what comes. "close" has it closed with 4001, "abort" cuts it off, and so it
    goes with who leaves a ping unanswered for half of `heartbeat=` seconds.
    """

    def __init__(self) -> None:
        self._worker = Worker("aiohttp_worker", {})

    @property
    def address(self) -> str:
        return self._worker.address

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def counts(self) -> dict[str, int]:
        """`uploaded` and `streamed` bytes of the latest request; `open` streams and sockets; the last `close_code`."""
        counts: dict[str, int] = self._worker.ask("counts")
        return counts

    def close(self) -> None:
        self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
