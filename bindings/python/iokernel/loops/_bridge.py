"""Channels of loops that are not asyncio's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._aio import LoopChannel
from . import Loop

if TYPE_CHECKING:
    from .._future import AioFuture


class BridgedLoop(Loop):
    """What such a loop has beside the part of asyncio's."""

    def request_future(self, kind: type[AioFuture]) -> Any:
        """What awaits a reply where asyncio's loops would have a future of this class."""
        raise NotImplementedError

    def at_end(self, callback: Callable[[], None]) -> None:
        """Calls when the loop ends."""
        raise NotImplementedError

    def tasks(self) -> Any:
        """An async context manager whose `start(coroutine)` runs it beside; what runs at its end is cancelled."""
        raise NotImplementedError


class BridgeChannel(LoopChannel):
    """The channel of such a loop."""

    loop: BridgedLoop

    def _keep(self) -> None:
        self.make_future = self.loop.request_future
        self.loop.at_end(self.close)
