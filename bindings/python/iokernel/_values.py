"""Values between Python and MessagePack.

| MessagePack            | Python                                                           |
|------------------------|------------------------------------------------------------------|
| nil, boolean, int      | None, bool, int (of any size: ext 2)                             |
| float                  | float                                                            |
| str                    | str, bytes that are no UTF-8 as surrogates (`surrogateescape`)   |
| bin                    | bytes; given: also bytearray and memoryview                      |
| array                  | list; given: also tuple                                          |
| map                    | dict, or a list of pairs where a key cannot be hashed            |
| ext 1, error           | RemoteError                                                      |
| ext 3, verbatim text   | str, without its format                                          |
| ext 4, set             | set, or a list where a member cannot be hashed                   |
| ext 5, with attributes | Attributed                                                       |
| ext 16 to 25           | values of PostgreSQL: `pg`                                       |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgpack  # type: ignore[import-untyped,unused-ignore]

from . import _pg_values
from ._errors import BadRequest, Error, RemoteError
from ._records import ENCODING_MSGPACK, ENCODING_NONE, ENCODING_TEXT

EXT_ERROR, EXT_BIG_NUMBER, EXT_VERBATIM, EXT_SET, EXT_ATTRIBUTED = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class Attributed:
    """A value that came with attributes (`attributes=True`)."""

    value: Any
    attributes: Any = field(default_factory=dict)


def _default(value: Any) -> Any:
    """What msgpack does not know by itself."""
    if isinstance(value, int):
        return msgpack.ExtType(EXT_BIG_NUMBER, str(value).encode())
    if isinstance(value, (set, frozenset)):
        return msgpack.ExtType(EXT_SET, pack(list(value)))
    if isinstance(value, Error):
        return msgpack.ExtType(EXT_ERROR, pack([value.code or "ERR", value.message]))
    if isinstance(value, Attributed):
        return msgpack.ExtType(EXT_ATTRIBUTED, pack([value.attributes, value.value]))
    ext = _pg_values.encode(value, pack)
    if ext is not None:
        return msgpack.ExtType(*ext)
    raise TypeError(
        f"{type(value).__name__}: expected None, bool, int, float, str, bytes, Decimal, UUID, a date, time or "
        "range, or a list, dict or set of them"
    )


def packer() -> Callable[[Any], bytes]:
    """A function that packs values; for one thread, faster than packing each with a packer of its own."""
    pack_one: Callable[[Any], bytes] = msgpack.Packer(default=_default, unicode_errors="surrogateescape").pack
    return pack_one


def pack(value: Any) -> bytes:
    """A value as MessagePack."""
    return packer()(value)


def cannot_pack(error: Exception) -> BadRequest:
    """What to raise when a value cannot be packed."""
    return BadRequest(f"value: {error}", code="BADREQUEST", status=-107, fate="not_sent")


def _pairs(pairs: list[tuple[Any, Any]]) -> Any:
    try:
        return dict(pairs)
    except TypeError:
        return pairs


def _ext(kind: int, data: bytes) -> Any:
    if kind == EXT_BIG_NUMBER:
        return int(data)
    if kind == EXT_VERBATIM:
        return data[4:].decode("utf-8", "surrogateescape")
    if kind == EXT_ERROR:
        code, message = unpack(data)
        return RemoteError(message, code=code, status=-301, fate="replied")
    if kind == EXT_SET:
        members = unpack(data)
        try:
            return set(members)
        except TypeError:
            return members
    if kind == EXT_ATTRIBUTED:
        attributes, value = unpack(data)
        return Attributed(value, attributes)
    if _pg_values.NUMERIC <= kind <= _pg_values.MULTIRANGE:
        return _pg_values.decode(kind, data, unpack)
    return msgpack.ExtType(kind, data)


_unpackb = msgpack.unpackb


def unpack(data: bytes) -> Any:
    """One MessagePack value."""
    try:
        return _unpackb(data, ext_hook=_ext, strict_map_key=False, unicode_errors="surrogateescape")
    except TypeError:
        return _unpackb(
            data, ext_hook=_ext, strict_map_key=False, unicode_errors="surrogateescape", object_pairs_hook=_pairs
        )


def decode(encoding: int, payload: bytes) -> Any:
    """The payload of a completion."""
    if encoding == ENCODING_MSGPACK:
        return unpack(payload)
    if encoding == ENCODING_TEXT:
        return payload.decode("utf-8", "surrogateescape")
    return None if encoding == ENCODING_NONE else payload
