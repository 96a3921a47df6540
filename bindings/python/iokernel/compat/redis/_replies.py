"""Replies: the kernel's values as redis-py's own parsers give them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from redis import exceptions
from redis._parsers import Encoder
from redis._parsers.base import BaseParser
from redis.utils import HIREDIS_AVAILABLE

from iokernel import _errors

CLOSED_BY_SERVER = "Connection closed by server."
_REFUSED, _TOO_LARGE = -305, -206
_parse_error: Callable[[str], Exception] = BaseParser.parse_error
_PLAIN = frozenset({bytes, int, type(None), float, bool})
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
_ERRNOS = {os.strerror(number): number for number in errno.errorcode}


def said(error: _errors.RemoteError) -> Exception:
    """The exception that redis-py's parsers make of an error reply."""
    error.__traceback__ = None
    text = f"{error.code} {error.message}" if error.message else error.code
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return _parse_error(text)


def failure(error: Exception, host: str) -> Exception:
    """The exception of redis-py for a request that got no reply. `host`: as redis-py names it in errors."""
    # Frames would keep the pool alive until the next collection.
    error.__traceback__ = None
    if isinstance(error, _errors.RemoteError):
        return said(error)
    if isinstance(error, _errors.Timeout):
        return exceptions.TimeoutError(f"Timeout reading from {host}")
    if isinstance(error, _errors.Unavailable):
        return unavailable(error.message, host)
    if isinstance(error, _errors.BadRequest):
        return exceptions.DataError(error.message)
    if isinstance(error, (_errors.ConnectionLost, _errors.Closed, _errors.Cancelled)):
        return exceptions.ConnectionError(CLOSED_BY_SERVER)
    if isinstance(error, _errors.Overloaded) and error.status != _TOO_LARGE:
        return exceptions.ConnectionError(f"Error while writing to {host}: {error.message}")
    if isinstance(error, _errors.Error):
        return exceptions.InvalidResponse(error.message)
    return error


def unavailable(message: str, host: str) -> Exception:
    """Why there is no connection, in redis-py's words: the server's refusal, or the system's."""
    refused, _, words = message.partition("the server refused the handshake's ")
    if words and not refused:
        return _parse_error(words.partition(": ")[2])
    reason = message.partition(" (")[0].rpartition(": ")[2]
    if reason in _ERRNOS:
        return exceptions.ConnectionError(f"Error {_ERRNOS[reason]} connecting to {host}. {reason}.")
    return exceptions.ConnectionError(f"Error connecting to {host}: {message}.")


class Replies:
    """Turns values into what redis-py expects, with the encoding of one connection."""

    def __init__(self, encoder: Encoder) -> None:
        self._decode = bool(encoder.decode_responses)
        self._encoding = encoder.encoding
        self._errors = encoder.encoding_errors
        self._utf8 = self._encoding.lower().replace("_", "-") in ("utf-8", "utf8")

    def give(self, value: Any, raw: bool = False) -> Any:
        """One reply. `raw`: bytes stay bytes. Errors are returned, except those that end the connection."""
        kind = type(value)
        if kind is bytes:
            return value if raw or not self._decode else value.decode(self._encoding, self._errors)
        if kind is str:
            return self._text(value, raw)
        reply = self._other(value, raw or not self._decode)
        if isinstance(reply, exceptions.ConnectionError):
            raise reply
        if type(reply) is list and reply and isinstance(reply[0], exceptions.ConnectionError):
            raise reply[0]
        return reply

    def _text(self, text: str, raw: bool) -> Any:
        """Simple strings, which are bytes to redis-py."""
        if raw or not self._decode:
            return text.encode("utf-8", "surrogateescape")
        if self._utf8 and text.isascii():
            return text
        return text.encode("utf-8", "surrogateescape").decode(self._encoding, self._errors)

    def _other(self, value: Any, raw: bool) -> Any:
        kind = type(value)
        if kind is bytes:
            return value if raw else value.decode(self._encoding, self._errors)
        if kind is list:
            if raw and _PLAIN.issuperset(map(type, value)):
                return value
            return [self._other(member, raw) for member in value]
        if kind is int:
            # hiredis has no big numbers: it gives their digits.
            if HIREDIS_AVAILABLE and not _INT_MIN <= value <= _INT_MAX:
                return str(value).encode() if raw else str(value)
            return value
        if kind is str:
            return self._text(value, raw)
        if kind is dict:
            return {self._other(key, raw): self._other(member, raw) for key, member in value.items()}
        if kind is set:
            return [self._other(member, raw) for member in value]
        return said(value) if kind is _errors.RemoteError else value
