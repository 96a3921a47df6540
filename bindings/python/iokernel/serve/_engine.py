"""What the servers are made of: the accelerator's classes, or the same in Python where it was not built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._native import accelerator

if TYPE_CHECKING or accelerator is None:
    from ._pure import AsgiBase, CycleBase, Resumed, StartBase, WsgiBase

    step_done: Any = object()
else:
    StartBase, WsgiBase = accelerator.Start, accelerator.Wsgi
    CycleBase, AsgiBase, Resumed = accelerator.Cycle, accelerator.Asgi, accelerator.Resumed
    step_done = accelerator.serving()

__all__ = ["AsgiBase", "CycleBase", "Resumed", "StartBase", "WsgiBase", "step_done"]
