"""Finds and loads the library, and declares what the binding uses of it.

The functions that never block are called with the GIL held where that is possible (CPython, through ctypes.PyDLL):
giving it up for a call of 100 ns means waiting for it while another thread computes. Those that may block go through
cffi, which drops it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import cffi  # type: ignore[import-untyped,unused-ignore]

ABI_VERSION = 1

FEATURES = {"fragments": 1, "services": 2, "listeners": 4, "leases": 8, "streams": 16, "peers": 32, "trace": 64}

_CDEF = """
typedef int32_t iok_status;
typedef struct iok_kernel iok_kernel;
typedef struct iok_channel iok_channel;

uint32_t iok_abi_version(void);
uint64_t iok_features(void);
iok_status iok_kernel_open(const char *config, iok_kernel **out);
iok_status iok_kernel_close(iok_kernel *kernel, uint32_t drain_ms);
iok_status iok_stack_open(iok_kernel *kernel, int32_t *signal, int32_t *fd);
iok_status iok_stack_arm(iok_kernel *kernel, uint32_t flags);
iok_status iok_stack_close(iok_kernel *kernel, bool *restored);
iok_status iok_channel_open(iok_kernel *kernel, const char *config, iok_channel **out);
iok_status iok_channel_close(iok_channel *channel);
int iok_channel_fd(const iok_channel *channel);
iok_status iok_channel_status(const iok_channel *channel);
iok_status iok_submit_batch(iok_channel *channel, const void *records, size_t bytes, size_t *taken);
iok_status iok_reserve(iok_channel *channel, uint32_t payload_bytes, void **out);
iok_status iok_commit(iok_channel *channel);
iok_status iok_cells(iok_kernel *kernel, const char *spec, uint64_t **cells, uint32_t *count);
iok_status iok_marker_slot(iok_kernel *kernel, void **out);
iok_status iok_flush(iok_channel *channel);
iok_status iok_wait(iok_channel *channel, int32_t timeout_ms);
size_t iok_poll(iok_channel *channel, const void **first, size_t *bytes);
iok_status iok_advance(iok_channel *channel, size_t bytes);
const char *iok_status_name(iok_status status);
const char *iok_status_text(iok_status status);
bool iok_status_retriable(iok_status status);
const char *iok_last_error(void);
"""

_NAME = "libiokernel.so"


def _candidates() -> list[Path]:
    """Where the library may be, the likeliest first."""
    here = Path(__file__).resolve().parent
    found = [here / _NAME]
    for folder in here.parents:
        if (folder / "Cargo.toml").is_file():
            target = Path(os.environ.get("CARGO_TARGET_DIR") or folder / "target")
            found.append(target / "release" / _NAME)
            break
    return found


def find_library() -> str:
    """The path of the library: `IOKERNEL_LIBRARY`, beside this file, or in the source tree that this file is in."""
    given = os.environ.get("IOKERNEL_LIBRARY")
    if given:
        if not Path(given).is_file():
            raise ImportError(f"IOKERNEL_LIBRARY: {given!r}: expected the path of {_NAME}")
        return given
    tried = _candidates()
    for path in tried:
        if path.is_file():
            return str(path)
    listed = ", ".join(str(path) for path in tried)
    raise ImportError(
        f"{_NAME} was not found ({listed}): build it with `cargo build --release`, or set IOKERNEL_LIBRARY to its path"
    )


ffi: Any = cffi.FFI()
ffi.cdef(_CDEF)
path: str = find_library()


def _load() -> Any:
    try:
        loaded = ffi.dlopen(path)
        version = loaded.iok_abi_version()
    except (OSError, AttributeError) as error:
        raise ImportError(f"{path}: cannot be loaded: {error}") from None
    if version != ABI_VERSION:
        raise ImportError(f"{path}: ABI version {version}: expected {ABI_VERSION}, as this binding was made for")
    return loaded


lib: Any = _load()

_KEEPING_GIL = {
    "iok_submit_batch": (ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]),
    "iok_flush": (ctypes.c_int32, [ctypes.c_void_p]),
    "iok_poll": (ctypes.c_size_t, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]),
    "iok_advance": (ctypes.c_int32, [ctypes.c_void_p, ctypes.c_size_t]),
    "iok_channel_status": (ctypes.c_int32, [ctypes.c_void_p]),
}


class Calls:
    """The calls of the hot path. They take handles and pointers as `pointer` makes them."""

    def __init__(self) -> None:
        self.keeps_gil = sys.implementation.name == "cpython"
        if self.keeps_gil:
            held = ctypes.PyDLL(path)
            for name, (result, arguments) in _KEEPING_GIL.items():
                function = getattr(held, name)
                function.restype, function.argtypes = result, arguments
                setattr(self, name[4:], function)
        else:
            for name in _KEEPING_GIL:
                setattr(self, name[4:], getattr(lib, name))

    submit_batch: Any
    flush: Any
    poll: Any
    advance: Any
    channel_status: Any

    def pointer(self, cdata: Any) -> Any:
        """A cffi pointer as these calls take it."""
        return int(ffi.cast("uintptr_t", cdata)) if self.keeps_gil else cdata


calls = Calls()


def text(pointer: Any) -> str:
    """A C string of the library's."""
    return bytes(ffi.string(pointer)).decode("utf-8", "replace")


def last_error() -> str:
    """The text of this thread's last error."""
    return text(lib.iok_last_error())


def status_name(status: int) -> str:
    """The name of a status, without its prefix: `"TIMEOUT"`."""
    return text(lib.iok_status_name(status)).removeprefix("IOK_STATUS_")


def status_text(status: int) -> str:
    """What a status means, in one sentence."""
    return text(lib.iok_status_text(status))
