"""Builds the accelerator where a C compiler is, and puts the library and the program `iokernel` into wheels.

The accelerator is optional: without a compiler the wheel is one for any Python 3 of the platform. The library is taken
from `IOKERNEL_LIBRARY`, or from `target/release` of the source tree; the program from the library's folder.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:
    from wheel.bdist_wheel import bdist_wheel

HERE = Path(__file__).resolve().parent
LIBRARY = "libiokernel.so"
PROGRAM = "iokernel"
# PyUnicode_AsUTF8AndSize belongs to the limited API since 3.10. A free-threaded Python has no limited API, and the
# accelerator would give it its GIL back.
HAS_GIL = not sysconfig.get_config_var("Py_GIL_DISABLED")
ACCELERATED = sys.implementation.name == "cpython" and sys.version_info >= (3, 10) and HAS_GIL


def library() -> Path | None:
    """The library to put into the wheel."""
    tree = HERE.parents[1]
    target = Path(os.environ.get("CARGO_TARGET_DIR") or tree / "target")
    for path in (os.environ.get("IOKERNEL_LIBRARY"), target / "release" / LIBRARY, HERE / "iokernel" / LIBRARY):
        if path and Path(path).is_file():
            return Path(path)
    return None


PARTS = ("times", "values", "future", "loops", "caller", "cells", "copy", "markers", "http", "wsgi", "asgi")


class BuildPy(build_py):
    """Also copies the library, except for editable installs, which find it in the source tree."""

    def run(self) -> None:
        super().run()
        if getattr(self, "editable_mode", False):
            return
        found = library()
        if found is None:
            raise SystemExit(
                f"{LIBRARY} was not found: run `cargo build --release` first, or set IOKERNEL_LIBRARY to its path"
            )
        package = Path(self.build_lib) / "iokernel"
        shutil.copy2(found, package / LIBRARY)
        program = found.parent / PROGRAM
        if program.is_file():
            shutil.copy2(program, package / PROGRAM)
        else:
            self.warn(f"{program} was not found: only `doctor` and `--version` of the command line will work")


class BdistWheel(bdist_wheel):
    """Tags the wheel by what is in it: the platform always, the ABI only with the accelerator."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> tuple[str, str, str]:
        _, _, platform = super().get_tag()
        built = self.get_finalized_command("build_py").build_lib
        if any(Path(built, "iokernel").glob("_accel*.so")):
            return "cp310", "abi3", platform
        return "py3", "none", platform


accelerator = Extension(
    "iokernel._accel",
    ["iokernel/_accel.c"],
    depends=[f"iokernel/_accel_{part}.h" for part in PARTS],
    py_limited_api=True,
    optional=True,
    extra_compile_args=["-O2"],
)

setup(
    ext_modules=[accelerator] if ACCELERATED else [],
    cmdclass={"build_py": BuildPy, "bdist_wheel": BdistWheel},
)
