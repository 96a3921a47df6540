"""Trace contexts (W3C): how a request says which trace it belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ._errors import BadRequest
from ._native import accelerator

Source = Callable[[], "str | None"]

source: Source | None = None
"""Asked for the context of each request that is given none."""

_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE, _NO_PARENT = "0" * 32, "0" * 16


def trace_from(current: Source | None) -> None:
    """Sets where requests without a `trace` of their own get it from: a callable without arguments.

    It returns the `traceparent` of what runs in this thread or task, or None for no trace, and is called for each
    request. None sets that nobody is asked, which costs a request nothing.
    """
    global source
    if current is not None and not callable(current):
        raise TypeError(f"trace_from: {current!r}: expected a callable, or None")
    source = current
    if accelerator is not None:
        accelerator.traced(current is not None)


def context_bytes(traceparent: Any) -> bytes:
    """A `traceparent` as it stands in front of a payload."""
    found = _TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
    version, trace, parent, flags, more = found.groups() if found else ("", "", "", "", None)
    if found is None or trace == _NO_TRACE or parent == _NO_PARENT or (more and version == "00"):
        raise BadRequest(
            f"trace: {traceparent!r}: expected a W3C traceparent, as in "
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            code="BADREQUEST",
            status=-107,
            fate="not_sent",
        )
    return bytes.fromhex(trace + parent + flags).ljust(32, b"\0")
