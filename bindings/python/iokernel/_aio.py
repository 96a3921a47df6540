"""The channel of a loop: watched by the loop, submitted to once per turn."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any

from ._channel import Names
from ._lib import lib
from ._native import ThreadChannel

if TYPE_CHECKING:
    from .loops import Loop


class LoopChannel(ThreadChannel):
    """Used inside of one loop only; closed with it."""

    make_future: Callable[[Any], Any] | None = None
    """Makes what awaits a reply; None: asyncio's futures do."""

    def __init__(self, handle: Any, names: Names, loop: Loop) -> None:
        super().__init__(handle, names)
        self.loop: Any = loop
        self._process = os.getpid()
        self._scheduled = False
        self._call_soon = loop.call_soon
        self._fd: int = lib.iok_channel_fd(handle)
        loop.add_reader(self._fd, self._readable)
        self._keep()

    def _keep(self) -> None:
        """Sees to it that the channel ends with its loop."""
        self._keeper = _keeper(self)
        with contextlib.suppress(StopIteration):
            # Started inside of the loop, so that the loop ends it when it shuts down.
            self._keeper.__anext__().send(None)

    def _schedule(self) -> None:
        self._scheduled = True
        self._call_soon(self._turn)

    def close(self) -> None:
        """Ends everything under way. A loop that was closed before has no turns any more."""
        self._scheduled = self._scheduled or self.loop.is_closed()
        super().close()

    def _turn(self) -> None:
        """The end of a turn: everything it queued goes in one call."""
        self._scheduled = False
        if not self.ended:
            self.flush()
            self._bell()

    def _readable(self) -> None:
        """One run for each wake: while there is more, the descriptor stays readable."""
        self.poll()
        if self._unsent and not self.ended:
            self.flush()
            self._bell()

    def drop(self, tag: int) -> None:
        super().drop(tag)
        if self._process != os.getpid():
            return  # The loop, and what wakes it, is the parent's.
        try:
            self.loop.call_soon_threadsafe(self._turn)
        except RuntimeError:
            return  # The loop is closed; so is what was under way in it.

    def _end(self, status: int) -> None:
        # In a forked child the loop's selector is the parent's, and the descriptor's number may be another file's.
        if not self.ended and not self.loop.is_closed() and self._process == os.getpid():
            self.loop.remove_reader(self._fd)
        if self.loop.is_closed():
            # Nobody in that loop can be told any more.
            self._take_all()
        super()._end(status)


async def _keeper(channel: LoopChannel) -> AsyncGenerator[None, None]:
    """Loops end their async generators when they shut down: that closes the channel in time."""
    try:
        yield
    finally:
        channel.close()
