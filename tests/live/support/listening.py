"""A listener of this process, served by a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import iokernel


@contextmanager
def serving(handler: Callable[[iokernel.Request], Any], url: str, **options: Any) -> Iterator[iokernel.Listener]:
    listener = iokernel.listen(url, **options)
    thread = threading.Thread(target=listener.serve, args=(handler,))
    thread.start()
    try:
        yield listener
    finally:
        listener.close()
        thread.join(5)
        assert not thread.is_alive()
