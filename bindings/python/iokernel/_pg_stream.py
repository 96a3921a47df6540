"""Rows and data of COPY, as they come and go; see `pg`."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ._errors import BadRequest, Error
from ._exchange import Exchange

if TYPE_CHECKING:
    from ._channel import Completion
    from ._endpoint import Endpoint, Route
    from .pg import Row, Rows

    Source = bytes | bytearray | memoryview | str | Iterable[bytes] | AsyncIterable[bytes] | Any

ABORT_S = 10.0
"""How long a COPY that is to fail may take for it; then its connection is closed."""
PIECE_BYTES = 64 << 10
"""What is sent at once of what comes in smaller or larger pieces."""


class RowStream(Exchange):
    """The rows of one statement as they come: `for row in stream`, or `async for`. `batches()` has them many at a time.

    Only what fits into the endpoint's `window` is read ahead, and the server waits meanwhile. `close()`, or the end of
    the `with`, ends it early: its connection, which nobody else uses, is closed.
    """

    _described: Rows
    _batch: Iterator[Row] = iter(())

    def __init__(
        self, endpoint: Endpoint, sql: str, args: tuple[Any, ...], timeout: float | None, route: Route | None
    ) -> None:
        super().__init__(endpoint, ({"stream": [sql, *args]},), timeout, route)

    def _completion(self, done: Completion) -> None:
        from .pg import Rows

        super()._completion(done)
        if self._is_accepted and not hasattr(self, "_described"):
            self._described = Rows(["", self.head, []])

    def _told(self) -> Rows:
        if not self._is_accepted:
            self._users.block(lambda: self._is_accepted or self._over, None)
        if not self._is_accepted:
            raise self._gone()
        return self._described

    @property
    def columns(self) -> list[str]:
        """The names of the columns. Blocks until they are known; inside of a loop enter or await the stream first."""
        return self._told().columns

    @property
    def types(self) -> list[str]:
        """The types of the columns, as pg_type calls them. Blocks as `columns` does."""
        return self._told().types

    @property
    def tag(self) -> str | None:
        """The server's word, such as `SELECT 2`, which is there after the last row; None before it has come."""
        return self._value[0] if self._value else None

    def batches(self) -> Batches:
        """The rows as Rows of many each, whose `columnar()` and `lists()` are quicker than row after row."""
        return Batches(self)

    def _rows(self, batch: list[list[Any]]) -> Rows:
        from .pg import Rows

        return Rows(["", self.head, batch])

    def __next__(self) -> Row:
        while True:
            for row in self._batch:
                return row
            self._batch = iter(self._rows(super().__next__()))

    async def __anext__(self) -> Row:
        while True:
            for row in self._batch:
                return row
            self._batch = iter(self._rows(await super().__anext__()))

    async def __aenter__(self) -> RowStream:
        try:
            await self.accepted()
        except BaseException:
            self.close()
            raise
        return self


class Batches:
    """The batches of a stream."""

    def __init__(self, stream: RowStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[Rows]:
        return self

    def __next__(self) -> Rows:
        return self._stream._rows(Exchange.__next__(self._stream))

    def __aiter__(self) -> AsyncIterator[Rows]:
        return self

    async def __anext__(self) -> Rows:
        return self._stream._rows(await Exchange.__anext__(self._stream))


class Copy(Exchange):
    """A COPY under way. As an iterable, the pieces of bytes that `COPY ... TO STDOUT` gives; they end anywhere."""

    def __init__(
        self, endpoint: Endpoint, sql: str, direction: str, timeout: float | None, route: Route | None
    ) -> None:
        self._direction = direction
        super().__init__(endpoint, ({"copy": sql},), timeout, route)

    @property
    def tag(self) -> str | None:
        """The server's word, such as `COPY 2`, which is there after the last piece; None before it has come."""
        return self._value[0] if self._value else None

    @property
    def format(self) -> str | None:
        """`text` or `binary`; None before the server has said so."""
        return self.head[1] if self._is_accepted else None

    def _is_wrong(self) -> bool:
        return self._is_accepted and self.head[0] != self._direction

    def _has_news(self) -> bool:
        return self._is_wrong() or super()._has_news()

    def check(self) -> None:
        """Raises BadRequest, and ends it, if the data goes the other way."""
        if self._is_wrong():
            self.close()
            expected, given = ("FROM STDIN", "TO STDOUT")[:: 1 if self._direction == "in" else -1]
            text = f"copy: a COPY {given}: expected COPY ... {expected}"
            raise BadRequest(text, code="BADREQUEST", status=-107, fate="maybe_executed")

    def __next__(self) -> bytes:
        if not self._messages:
            self._users.block(self._has_news, None)
        self.check()
        piece: bytes = super().__next__()
        return piece

    async def __anext__(self) -> bytes:
        if not self._messages:
            await self._users.until(self._has_news, None)
        self.check()
        piece: bytes = await super().__anext__()
        return piece


def copy_from(copy: Copy, source: Source) -> Rows:
    """Gives a COPY everything that the source has; blocks."""
    from .pg import Rows

    with copy:
        copy.accepted()
        copy.check()
        try:
            for piece in _gathered(_pieces(source)):
                copy.send(piece)
        except Exception as error:
            if not copy.closed:
                # The server answers with the error that it is told here.
                with contextlib.suppress(Error):
                    copy.finish({"abort": _why(error)}, ABORT_S)
                    copy.result(ABORT_S)
            raise
        copy.finish()
        return Rows(copy.result())


async def copy_from_async(copy: Copy, source: Source) -> Rows:
    """The same, awaited."""
    from .pg import Rows

    async with copy:
        await copy.accepted()
        copy.check()
        try:
            if isinstance(source, AsyncIterable) or inspect.iscoroutinefunction(getattr(source, "read", None)):
                async for piece in _gathered_async(source):
                    await copy.send(piece)
            else:
                for piece in _gathered(_pieces(source)):
                    await copy.send(piece)
        except Exception as error:
            if not copy.closed:
                with contextlib.suppress(Error):
                    await copy.finish({"abort": _why(error)}, ABORT_S)
                    await copy.result(ABORT_S)
            raise
        await copy.finish()
        return Rows(await copy.result())


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\0", " ")[:1000]


def _data(piece: Any) -> bytes | memoryview:
    """A piece of a source."""
    if isinstance(piece, str):
        return piece.encode()
    if isinstance(piece, bytes):
        return piece
    try:
        view = memoryview(piece).cast("B")
    except TypeError:
        given = type(piece).__name__
        text = f"source: {given}: expected bytes or str, a file, or an iterable of them"
        raise BadRequest(text, code="BADREQUEST", status=-107, fate="maybe_executed") from None
    # What is kept for a while is copied: it may be the buffer of the next piece too.
    return bytes(view) if len(view) < PIECE_BYTES else view


def _pieces(source: Source) -> Iterable[Any]:
    read = getattr(source, "read", None)
    if read is not None:
        return _read(read)
    if isinstance(source, Iterable) and not isinstance(source, (str, bytes, bytearray, memoryview)):
        return source
    return (source,)


def _read(read: Callable[[int], Any]) -> Iterator[Any]:
    while piece := read(PIECE_BYTES):
        yield piece


class _Gathering:
    """Makes pieces of about one size of pieces of any size."""

    def __init__(self) -> None:
        self._held: list[bytes | memoryview] = []
        self._size = 0

    def put(self, piece: Any) -> Iterable[bytes | memoryview]:
        """What is to be sent, where this piece makes it enough."""
        data = _data(piece)
        self._held.append(data)
        self._size += len(data)
        return () if self._size < PIECE_BYTES else self.rest()

    def rest(self) -> Iterable[bytes | memoryview]:
        held, self._held, self._size = self._held, [], 0
        if not held:
            return ()
        if len(held) > 1 and len(held[-1]) >= PIECE_BYTES:
            # The large one as it is, not copied.
            return (*_cut(b"".join(held[:-1])), *_cut(held[-1]))
        return _cut(held[0] if len(held) == 1 else b"".join(held))


def _cut(data: bytes | memoryview) -> Iterable[bytes | memoryview]:
    if len(data) <= 2 * PIECE_BYTES:
        return (data,)
    view = memoryview(data)
    return (view[start : start + PIECE_BYTES] for start in range(0, len(view), PIECE_BYTES))


def _gathered(pieces: Iterable[Any]) -> Iterator[bytes | memoryview]:
    gathering = _Gathering()
    for piece in pieces:
        yield from gathering.put(piece)
    yield from gathering.rest()


async def _gathered_async(source: Any) -> AsyncIterator[bytes | memoryview]:
    gathering = _Gathering()
    if hasattr(source, "read"):
        while piece := await source.read(PIECE_BYTES):
            for whole in gathering.put(piece):
                yield whole
    else:
        async for piece in source:
            for whole in gathering.put(piece):
                yield whole
    for whole in gathering.rest():
        yield whole
