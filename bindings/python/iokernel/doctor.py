"""`python -m iokernel doctor [url]`: what is installed, whether it works, and what a URL leads to."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata

ECHOES = 200


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


class Report:
    """Lines of a name and what was found; remembers whether something is wrong."""

    def __init__(self) -> None:
        self.failed = False

    def line(self, name: str, found: str) -> None:
        print(f"{name:<14} {found}", flush=True)

    def check(self, name: str, look: Callable[[], str]) -> None:
        try:
            self.line(name, look())
        except Exception as error:
            self.failed = True
            self.line(name, f"FAILED: {error or type(error).__name__}")


def _library() -> str:
    from . import _lib

    bits = _lib.lib.iok_features()
    words = ", ".join(name for name, bit in _lib.FEATURES.items() if bits & bit)
    return f"{_lib.path}\n{'':<14} ABI {_lib.lib.iok_abi_version()}; {words}"


def _path() -> str:
    from . import _native

    if _native.accelerator is None:
        return f"pure cffi, because {_native.why_pure}"
    return f"accelerator, {_native.accelerator.__file__}"


def _echo() -> str:
    """Records to the I/O thread and back, without any network."""
    from . import Kernel
    from ._records import OP_ECHO

    with Kernel(name="doctor") as kernel:
        channel = kernel.thread_channel()
        times = []
        for index in range(ECHOES):
            payload = b"%d" % index
            start = time.perf_counter()
            done = kernel.block(OP_ECHO, 0, payload, channel)
            times.append(time.perf_counter() - start)
            if done.payload != payload:
                raise RuntimeError(f"an echo came back as {done.payload!r}: expected {payload!r}")
        return f"{statistics.median(times) * 1e6:.0f} µs to the I/O thread and back (median of {ECHOES})"


def _fork() -> str:
    """A child must find the parent's kernel stale, and be able to start its own."""
    from . import Kernel

    with Kernel(name="doctor") as kernel:
        pid = os.fork()
        if pid == 0:
            try:
                kernel.thread_channel()
                os._exit(0)
            except BaseException:
                os._exit(1)
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError("a forked child could not start a kernel of its own")
    return "a child starts a kernel of its own"


def _files() -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    advice = "; low for many connections: ulimit -n" if soft < 1024 else ""
    return f"at most {soft} file descriptors (hard limit {hard}){advice}"


def _endpoint(url: str) -> str:
    from . import Kernel

    with Kernel(name="doctor") as kernel:
        endpoint = kernel.open(url)
        start = time.perf_counter()
        endpoint.wait_ready(5)
        took_ms = (time.perf_counter() - start) * 1e3
        state = endpoint.state
        return f"{endpoint.url}: up in {took_ms:.1f} ms: {state.get('description', '')}"


def main(urls: list[str]) -> int:
    """Looks at everything. 0 if all is well."""
    from . import __version__

    report = Report()
    report.line("iokernel", __version__)
    report.line("python", f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}")
    report.line("packages", f"cffi {_version('cffi')}, msgpack {_version('msgpack')}")
    report.line("system", f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} CPUs")
    report.check("library", _library)
    report.check("call path", _path)
    report.check("round trip", _echo)
    report.check("fork", _fork)
    report.check("files", _files)
    for url in urls:
        report.check("endpoint", lambda url=url: _endpoint(url))  # type: ignore[misc]
    return 1 if report.failed else 0
