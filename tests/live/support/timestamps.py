"""When packets came and went, by the system's own clock: what a process that is not scheduled cannot spoil."""

from __future__ import annotations

import contextlib
import socket
import struct

# <linux/net_tstamp.h>; socket(7), "SO_TIMESTAMPING".
SO_TIMESTAMPING = 37
TX_SOFTWARE, RX_SOFTWARE, SOFTWARE, OPT_TSONLY = 1 << 1, 1 << 3, 1 << 4, 1 << 11
ANCILLARY_BYTES = 512
_TIMES = struct.Struct("=6q")


def stamp_all(conn: socket.socket) -> None:
    """From here on the system notes when packets of this socket came and went."""
    conn.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_SOFTWARE | RX_SOFTWARE | SOFTWARE | OPT_TSONLY)


def received(conn: socket.socket, size: int = 1 << 16) -> tuple[bytes, int]:
    """The next bytes, and when the last packet of them arrived: nanoseconds since 1970."""
    data, ancillary, _, _ = conn.recvmsg(size, ANCILLARY_BYTES)
    return data, _stamp(ancillary)


def sent(conn: socket.socket) -> int:
    """When the last packet that was sent left, if the system tells; else 0. To be asked after each send."""
    left_ns = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            _, ancillary, _, _ = conn.recvmsg(0, ANCILLARY_BYTES, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
            left_ns = max(left_ns, _stamp(ancillary))
    return left_ns


def _stamp(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPING):
            seconds, nanoseconds, *_ = _TIMES.unpack_from(data)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return 0
