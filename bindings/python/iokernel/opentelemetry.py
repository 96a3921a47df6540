"""Requests belong to the trace of OpenTelemetry's current span: `iokernel.opentelemetry.install()`."""

from __future__ import annotations

from ._tracing import trace_from


def install() -> None:
    """From here on each request carries the context of the span that is current where it is made.

    Raises ImportError if opentelemetry-api is not installed. `iokernel.trace_from(None)` undoes it.
    """
    from opentelemetry.trace import get_current_span

    def current() -> str | None:
        context = get_current_span().get_span_context()
        if not context.is_valid:
            return None
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    trace_from(current)
