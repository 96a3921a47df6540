"""Requests: redis-py's arguments as the kernel takes them, and what each command needs of its connection.

The kernel knows by itself which commands wait and which change a connection (`src/proto/redis/commands.rs`); here the
same is known early enough to take a lease.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from redis._parsers import Encoder
from redis.exceptions import DataError

try:
    from redis.connection import HiredisRespSerializer
    from redis.utils import HIREDIS_AVAILABLE
except ImportError:  # pragma: no cover
    HIREDIS_AVAILABLE = False


class Need(enum.Enum):
    """What a command needs of its connection."""

    SHARED = enum.auto()
    WAITS = enum.auto()
    """It may wait in the server: a lane of its own, which the kernel finds. In a batch: a lease."""
    TRANSACTION = enum.auto()
    """A lease until the transaction is over: WATCH, MULTI and what follows."""
    STICKY = enum.auto()
    """It changes the connection: a lease for as long as redis-py keeps this Connection."""
    LEAVES = enum.auto()
    """As STICKY, and the connection ends with it: QUIT."""
    TOPICS = enum.auto()
    MONITOR = enum.auto()


class Command(NamedTuple):
    """One command, packed."""

    name: str
    need: Need
    words: list[Any]


_NEEDS = {
    Need.WAITS: "BLPOP BRPOP BLMOVE BRPOPLPUSH BLMPOP BZPOPMIN BZPOPMAX BZMPOP WAIT WAITAOF",
    Need.TRANSACTION: "MULTI EXEC DISCARD WATCH UNWATCH",
    Need.STICKY: "SELECT AUTH HELLO RESET READONLY READWRITE ASKING HIMPORT",
    Need.LEAVES: "QUIT",
    Need.TOPICS: "SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE",
    Need.MONITOR: "MONITOR",
}
_BY_NAME = {name: need for need, names in _NEEDS.items() for name in names.split()}
_STICKY_PAIRS = {
    ("CLIENT", word) for word in ("REPLY", "TRACKING", "CACHING", "SETNAME", "SETINFO", "NO-EVICT", "NO-TOUCH")
} | {("SCRIPT", "DEBUG")}
_BY_ARGUMENTS = {"CLIENT", "SCRIPT", "XREAD", "XREADGROUP"}

_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
_HEADS_MAX = 1024
_heads: dict[Any, tuple[list[Any], str, Need]] = {}


def _head(given: Any) -> tuple[list[Any], str, Need]:
    """The words of a command's first argument ("CONFIG GET" is two), its name, and its need so far."""
    if isinstance(given, str):
        words: list[Any] = [word.decode() for word in given.encode().split()]
        name = words[0].upper() if words else ""
    elif isinstance(given, bytes):
        words = list(given.split())
        name = words[0].decode("utf-8", "replace").upper() if words else ""
    else:
        raise DataError(f"a command's name is str or bytes, not {type(given).__name__}")
    if not words:
        raise DataError("a command's name is empty")
    known = words, name, _BY_NAME.get(name, Need.SHARED)
    if len(_heads) < _HEADS_MAX:
        _heads[given] = known
    return known


def _word(argument: Any) -> str:
    if isinstance(argument, (bytes, bytearray)):
        return bytes(argument).decode("utf-8", "replace").upper()
    return argument.upper() if isinstance(argument, str) else ""


def _need_by_arguments(name: str, words: Sequence[Any]) -> Need:
    if name in ("CLIENT", "SCRIPT"):
        return Need.STICKY if len(words) > 1 and (name, _word(words[1])) in _STICKY_PAIRS else Need.SHARED
    for argument in words[1:]:
        word = _word(argument)
        if word == "BLOCK":
            return Need.WAITS
        if word == "STREAMS":
            break
    return Need.SHARED


class Packer:
    """Packs commands with the encoding of one connection."""

    def __init__(self, encoder: Encoder, like_hiredis: bool = False) -> None:
        self._encode: Callable[[Any], Any] = encoder.encode
        self._encoding = encoder.encoding
        self._errors = encoder.encoding_errors
        self._like_hiredis = like_hiredis and HIREDIS_AVAILABLE

    def __call__(self, args: Sequence[Any]) -> Command:
        """One command. Raises DataError for an argument that is no bytes, str, int or float."""
        given = args[0]
        try:
            head, name, need = _heads[given]
        except (KeyError, TypeError):
            head, name, need = _head(given)
        words = head.copy()
        append, encoding, errors = words.append, self._encoding, self._errors
        for argument in args[1:]:
            kind = type(argument)
            if kind is bytes:
                append(argument)
            elif kind is str:
                append(argument.encode(encoding, errors))
            elif kind is int and _INT_MIN <= argument <= _INT_MAX:
                append(argument)
            else:
                append(self._other(argument, args))
        if name in _BY_ARGUMENTS:
            need = _need_by_arguments(name, words)
        return Command(name, need, words)

    def _other(self, argument: Any, args: Sequence[Any]) -> bytes:
        try:
            encoded = self._encode(argument)
        except DataError:
            if self._like_hiredis:
                # The same complaint as without us, in the words of the packer that redis-py would have used.
                serializer: Any = HiredisRespSerializer
                serializer().pack(*args)
            raise
        return bytes(encoded)

    def all(self, commands: Iterable[Sequence[Any]]) -> Batch:
        """Commands that are to be sent together."""
        return Batch(self(args) for args in commands)


class Batch(list[Command]):
    """What `pack_commands` gives `send_packed_command`: commands that leave together."""

    def need(self) -> Need:
        """What they need together; STICKY where they cannot be one request."""
        needs = {command.need for command in self}
        for need in (Need.LEAVES, Need.STICKY, Need.TOPICS, Need.MONITOR):
            if need in needs:
                return Need.STICKY
        if Need.WAITS in needs:
            return Need.WAITS
        if Need.TRANSACTION in needs:
            names = [command.name for command in self if command.need is Need.TRANSACTION]
            closed = names[0] == "MULTI" and names[-1] in ("EXEC", "DISCARD") and len(names) == 2
            return Need.SHARED if closed else Need.TRANSACTION
        return Need.SHARED

    @property
    def is_transaction(self) -> bool:
        """True if it begins with MULTI: it may not be divided."""
        return bool(self) and self[0].name == "MULTI"
