"""The numbers and shapes of records, as the ABI has them (version 1)."""

from __future__ import annotations

import hashlib
import math
import struct

from ._errors import BadRequest, Timeout

OP_ECHO = 1
OP_OPEN = 2
OP_LISTEN = 3
OP_CLOSE = 4
OP_REQUEST = 5
OP_STREAM = 6
OP_CANCEL = 7
OP_LEASE = 8
OP_RELEASE = 9
OP_REPLY = 10
OP_STATE = 11
OP_PEERS = 12
OP_WATCH = 13
OP_SEND = 14
OP_CREDIT = 15

FLAG_MORE = 1
FLAG_IDEMPOTENT = 2
FLAG_QUIET = 4
FLAG_UNTIL_UP = 8
FLAG_ROUTE = 16
FLAG_TRACE = 32

KIND_DONE = 1
KIND_PUSH = 2
KIND_REQUEST = 3
KIND_LOST = 4
KIND_ACCEPTED = 5
KIND_GONE = 6
KIND_TICK = 7
KIND_END = 8

ENCODING_NONE = 0
ENCODING_MSGPACK = 1
ENCODING_BYTES = 2
ENCODING_TEXT = 3
ENCODING_RAW = 4

SUBMISSION_BYTES = 40
COMPLETION_BYTES = 72
TIMEOUT_NONE = 0xFFFFFFFF
_KEY_MAX = 0xFFFFFFFFFFFFFFFF

SUBMISSION = struct.Struct("=IHHIIQQII")
"""size, op, flags, endpoint, timeout_ms, tag, key, bytes_total, marker"""

COMPLETION = struct.Struct("=IHHIiQIBBHII")
"""size, kind, flags, endpoint, status, tag, peer, fate, encoding, reserved, bytes_total, reserved"""

BRIEF = struct.Struct("=II4xiQ4xxB")
"""size, kind and flags together, status, tag, encoding"""

DONE_WORD = struct.unpack("=I", struct.pack("=HH", KIND_DONE, 0))[0]
"""kind DONE without flags, as `BRIEF` gives it"""

PADDING = (b"", b"\0" * 7, b"\0" * 6, b"\0" * 5, b"\0" * 4, b"\0" * 3, b"\0" * 2, b"\0")
"""what follows a record, by its size modulo 8"""


def timeout_ms(timeout: float | None) -> int:
    """Seconds as a record holds them. None: the endpoint's default; `math.inf`: none.

    Raises Timeout if the time is over already, BadRequest if it is no time.
    """
    if timeout is None:
        return 0
    try:
        if timeout > 0:
            return TIMEOUT_NONE if timeout >= TIMEOUT_NONE // 1000 else math.ceil(timeout * 1000)
        if timeout <= 0:
            raise Timeout("the time was over before the request began", status=-202, fate="not_sent")
    except TypeError:
        pass
    raise BadRequest(f"timeout: {timeout!r}: expected seconds, None (the endpoint's default) or math.inf")


def route_key(route: int | str | bytes) -> int:
    """The 64 bits by which requests of one route go to one peer: the same in every process, on every machine.

    An int is taken as it is, modulo 2**64. Text (as UTF-8) and bytes are hashed: BLAKE2b with a digest of 8 bytes, read
    as a little-endian number. 0 means "no key" in a record, so a route of 0 becomes 2**64 - 1.
    """
    if isinstance(route, str):
        route = route.encode("utf-8", "surrogateescape")
    if isinstance(route, int):
        key = route
    elif isinstance(route, (bytes, bytearray, memoryview)):
        key = int.from_bytes(hashlib.blake2b(route, digest_size=8).digest(), "little")
    else:
        raise BadRequest(
            f"route: {route!r}: expected int, str or bytes", code="BADREQUEST", status=-107, fate="not_sent"
        )
    return key & _KEY_MAX or _KEY_MAX
