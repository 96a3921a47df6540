"""What can go wrong, and what is known of the request then."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

FATES: tuple[str | None, ...] = (None, "not_sent", "maybe_executed", "replied")


class Error(Exception):
    """Any error of iokernel.

    status: its number (negative; `status_name` is its name, such as `"TIMEOUT"`), 0 inside a reply.
    fate: `"not_sent"` (sending again is safe), `"maybe_executed"`, `"replied"`, or None where no request was.
    endpoint: the endpoint's URL, secrets left out, or None.
    peer: the number of the connection, or None.
    code: a word for programs, such as `"WRONGTYPE"`. message: a sentence for people.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int = 0,
        fate: str | None = None,
        endpoint: str | None = None,
        peer: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.fate = fate
        self.endpoint = endpoint
        self.peer = peer

    @property
    def status_name(self) -> str:
        """The name of the status, such as `"TIMEOUT"`."""
        from ._lib import status_name

        return status_name(self.status)

    def __str__(self) -> str:
        notes = [self.endpoint, self.fate.replace("_", " ") if self.fate and self.fate != "replied" else None]
        shown = ", ".join(note for note in notes if note)
        return f"{self.message} ({shown})" if shown else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_again, (type(self), self.message, self.__dict__))


def _again(kind: type[Error], message: str, fields: dict[str, Any]) -> Error:
    error = kind(message)
    error.__dict__.update(fields)
    return error


class RemoteError(Error):
    """The peer answered with an error. Inside a reply (a batch, a transaction) it is an element, not raised."""

    def __str__(self) -> str:
        return f"{self.code} {self.message}" if self.code else self.message

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, RemoteError)
            and type(other) is type(self)
            and (other.code, other.message) == (self.code, self.message)
        )

    def __hash__(self) -> int:
        return hash((self.code, self.message))


class Timeout(Error, TimeoutError):
    """The deadline passed; the fate says whether the request may have been executed."""

    __str__ = Error.__str__


class Unavailable(Error):
    """No connection could be made, or the peer refused it (user, password, database)."""


class ConnectionLost(Error, ConnectionError):
    """The connection was lost before the reply, or its peer broke the protocol."""

    __str__ = Error.__str__


class Overloaded(Error):
    """A limit of the endpoint or the channel was reached."""


class Cancelled(Error):
    """Cancelled by the program."""


class BadRequest(Error, ValueError):
    """The request is not one of the endpoint's protocol, or too large."""

    __str__ = Exception.__str__


class ConfigError(BadRequest):
    """A URL or option is wrong: `key`, `value`, and what was `expected`."""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message, **fields)
        found = re.fullmatch(r"([^:]+): (.*?): expected (.*)", message, re.DOTALL)
        self.key: str | None = found[1] if found else None
        self.value: str | None = found[2].strip("\"'") if found else None
        self.expected: str | None = found[3] if found else None


class Closed(Error):
    """The kernel, endpoint, listener or lease is closed."""


_KINDS: dict[int, type[Error]] = {
    -101: BadRequest,
    -102: Closed,
    -103: Closed,
    -104: Closed,
    -105: ConfigError,
    -106: BadRequest,
    -107: BadRequest,
    -108: BadRequest,
    -109: Closed,
    -110: Closed,
    -111: Closed,
    -201: Overloaded,
    -202: Timeout,
    -203: Cancelled,
    -204: Overloaded,
    -206: Overloaded,
    -301: RemoteError,
    -302: ConnectionLost,
    -303: Unavailable,
    -304: ConnectionLost,
    -305: Unavailable,
}


def error_for(
    status: int, fate: int = 0, endpoint: str | None = None, peer: int = 0, said: object = None, text: str = ""
) -> Error:
    """The error of a status. `said` is a completion's payload, `[code, message]`; `text` stands in for it."""
    code, message = "", text
    if isinstance(said, RemoteError):
        code, message = said.code, said.message
    elif isinstance(said, Sequence) and len(said) == 2:
        code, message = str(said[0]), str(said[1])
    if not message:
        from ._lib import status_text

        message = status_text(status)
    kind = _KINDS.get(status, Error)
    return kind(
        message, code=code, status=status, fate=FATES[fate] if fate < 4 else None, endpoint=endpoint, peer=peer or None
    )
