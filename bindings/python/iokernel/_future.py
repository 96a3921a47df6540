"""Futures: a small one of our own for threads, and asyncio's for its loops."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from ._channel import Channel
from ._errors import Cancelled, Timeout
from ._native import accelerator

if TYPE_CHECKING or accelerator is None:

    class FutureBase:
        """What the accelerator has its own of."""

        __slots__ = ("_channel", "_done", "_error", "_tag", "_value")
        _channel: Channel

        def __init__(self, channel: Channel) -> None:
            self._channel = channel
            self._tag = 0
            self._done = False
            self._error: BaseException | None = None
            self._value: Any = None

        def set_result(self, value: Any, /) -> None:
            self._value = value
            self._done = True

        def set_exception(self, error: BaseException, /) -> None:
            self._error = error
            self._done = True

        def result(self, timeout: float | None = None) -> Any:
            """The reply, waiting for it. Raises what the request failed with.

            `timeout`: seconds to wait here; when they are over, Timeout is raised and the request goes on.
            """
            if self._done and self._error is None:
                return self._value
            try:
                return self._result(timeout)
            finally:
                del self  # An error's traceback names this frame: a cycle.

        def _result(self, timeout: float | None = None) -> Any:
            raise NotImplementedError

else:
    FutureBase = accelerator.Future


class Future(FutureBase):
    """A reply under way, for the thread that asked. `result()` blocks until it is there.

    Made outside of event loops; inside of one, what is awaited there is given instead: an `asyncio.Future`, a Deferred.
    """

    __slots__ = ("__weakref__",)

    if not TYPE_CHECKING and accelerator is not None:

        def __init__(self, channel: Channel) -> None:
            self._channel = channel

    def done(self) -> bool:
        """True once `result()` would not block. Looks for what has completed, without waiting."""
        if not self._done and not self._channel.busy:
            self._channel.poll()
        return self._done

    def _is_done(self) -> bool:
        return self._done

    def cancelled(self) -> bool:
        """True after `cancel()`."""
        return isinstance(self._error, Cancelled)

    def cancel(self) -> bool:
        """Ends the request. False if it had ended."""
        if self._done or not self._channel.cancel(self._tag):
            return False
        self._channel.send()
        self.set_exception(Cancelled("cancelled by the program", status=-203, fate="maybe_executed"))
        return True

    def _result(self, timeout: float | None = None) -> Any:
        if not self._done:
            self._wait(timeout)
        if self._error is not None:
            try:
                raise self._error
            finally:
                del self  # Whose error's traceback names this frame: a cycle.
        return self._value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the request failed with, or None; waits as `result` does."""
        if not self._done:
            self._wait(timeout)
        return self._error

    def _wait(self, timeout: float | None) -> None:
        if timeout == math.inf:
            timeout = None
        if not self._channel.wait(self._is_done, timeout):
            raise Timeout(f"no reply within {timeout} s; the request goes on", status=-202)

    def __await__(self) -> Generator[Any, None, Any]:
        if not self._done:
            raise RuntimeError("made outside of a running event loop: call the endpoint inside of it, or use result()")
        return self.result()
        yield

    def __repr__(self) -> str:
        state = "pending" if not self._done else "failed" if self._error else "done"
        return f"<iokernel.Future {state}>"


class AioFuture(asyncio.Future):  # type: ignore[type-arg]
    """An asyncio future whose cancelling cancels its request."""

    __slots__ = ("_iok_channel", "_iok_tag")
    becomes: Callable[[Any], Any] | None = None
    """What subclasses make of a reply; for loops whose futures are other ones."""
    _iok_channel: Channel
    _iok_tag: int

    def cancel(self, msg: Any = None) -> bool:
        """Cancels the future and the request behind it."""
        if not super().cancel(msg):
            return False
        self._iok_channel.cancel(self._iok_tag)
        return True


if accelerator is not None:
    accelerator.futures(Future, AioFuture)
