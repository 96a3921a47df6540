"""Cursors of the server, for `dbapi`: rows that stay there until they are fetched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import _errors
from .dbapi import Cursor

if TYPE_CHECKING:
    from .dbapi import Connection


def spare_name(connection: Connection, prefix: str = "iok_") -> str:
    """A name that no cursor of the connection has. They come again, so that the server's statements do."""
    at = 1
    while f"{prefix}{at}" in connection._names:
        at += 1
    return f"{prefix}{at}"


class ServerCursor(Cursor):
    """`DECLARE`, `FETCH` and `CLOSE` with the face of a cursor.

    It lives as long as the transaction does in which it was executed; `withhold`: as the connection.
    """

    server_side = True

    def __init__(self, connection: Connection, name: str, withhold: bool = False) -> None:
        super().__init__(connection)
        self.name = name
        self.withhold = withhold
        self.itersize = 100
        """How many rows are fetched at once where they are taken one by one."""
        self._quoted = '"' + name.replace('"', '""') + '"'
        self._is_declared = False
        self._ends = 0
        connection._names.add(name)

    def execute(self, statement: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> ServerCursor:
        """Declares the cursor for a statement that gives rows."""
        self._open()
        self._undeclare()
        hold = "WITH HOLD " if self.withhold else ""
        request = self._request(f"DECLARE {self._quoted} NO SCROLL CURSOR {hold}FOR {statement}", parameters)
        self._forget()
        # Nothing is fetched, but what would be is described.
        declared, described = self.connection._ask(request, self._fetching("FORWARD 0"))
        if isinstance(declared, _errors.Error):
            raise self.connection._translated(declared) from declared
        self._is_declared, self._ends = True, self.connection._ends
        self._took(described)
        return self

    def executemany(self, statement: str, sets: Sequence[Sequence[Any] | Mapping[str, Any]]) -> ServerCursor:
        """Not supported: a cursor has the rows of one statement."""
        raise self.connection.NotSupportedError("executemany: a cursor with a name has the rows of one statement")

    def _fetching(self, how_many: str) -> dict[str, str]:
        # By the simple protocol: what a FETCH gives is another thing with each statement that is declared by that name.
        return {"simple": f"FETCH {how_many} FROM {self._quoted}"}

    def _fetch(self, how_many: str) -> list[list[Any]]:
        (answer,) = self.connection._ask(self._fetching(how_many))
        return self._took(answer)

    def _took(self, answer: Any) -> list[list[Any]]:
        """The rows of one FETCH."""
        if isinstance(answer, _errors.Error):
            raise self.connection._translated(answer) from answer
        self._take(answer[0])
        self.rowcount = -1
        return self._given()

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row; None after the last. `itersize` rows are fetched at once."""
        if self._at == len(self._given()):
            self._fetch(f"FORWARD {self.itersize}")
        return super().fetchone()

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """At most `size` (or `arraysize`) rows."""
        size = self.arraysize if size is None else size
        taken = super().fetchmany(size)
        if len(taken) < size:
            taken += map(tuple, self._fetch(f"FORWARD {size - len(taken)}"))
            self._at = len(self._given())
        return taken

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All the rows that are left."""
        taken = super().fetchall()
        taken += map(tuple, self._fetch("ALL"))
        self._at = len(self._given())
        return taken

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while (row := self.fetchone()) is not None:
            yield row

    def close(self) -> None:
        """Closes it in the server too, where it is still there."""
        if not self._closed:
            super().close()
            if not self.connection.closed:
                self._undeclare()
                self.connection._names.discard(self.name)

    def _undeclare(self) -> None:
        if not self._is_declared:
            return
        self._is_declared = False
        connection = self.connection
        is_sure = connection._ends == self._ends
        if not is_sure and not self.withhold and not connection._in_transaction:
            return
        try:
            # After the end of a savepoint it may be gone; then CLOSE would end the transaction.
            if is_sure or self._is_there():
                connection._ask([f"CLOSE {self._quoted}"])
        except connection.DatabaseError:
            # The transaction has failed: nothing but its end is accepted, which is the cursor's end too.
            return

    def _is_there(self) -> bool:
        (rows,) = self.connection._ask(["SELECT 1 FROM pg_cursors WHERE name = $1::text", self.name])
        return bool(len(rows))
