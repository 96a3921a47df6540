"""What both servers have in common of a response on its way to the kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

AHEAD_BYTES = 256 << 10
"""What of a response may be on its way to the kernel before the application is held."""
PIECE_BYTES = 128 << 10
"""The most that goes to the kernel as one record."""
CREDIT_BYTES = 64 << 10
"""What is read of a body is given back to the kernel in portions of this."""

PLAIN = [(b"Content-Type", b"text/plain; charset=utf-8")]
FAILURE = b"Internal Server Error\n"


def wire_headers(headers: Iterable[Any]) -> list[Any]:
    """Headers with text as the bytes that go over the wire: Latin-1, as PEP 3333 has it."""
    return [[_latin1(name), _latin1(value)] for name, value in headers]


def _latin1(text: Any) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode("latin-1")


def content_length(headers: Iterable[Any]) -> int | None:
    """What the headers say of the body's length; None if they do not."""
    for name, value in headers:
        if len(name) == 14 and name.lower() in ("content-length", b"content-length"):
            with contextlib.suppress(ValueError):
                return int(value)
    return None
