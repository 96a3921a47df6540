"""A wheel installs and works where there is no compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import iokernel._lib
import pytest

PACKAGE = Path(__file__).resolve().parents[1]
PROGRAM = """
import sys, iokernel
from iokernel import _lib, _native
assert _lib.path.startswith(sys.prefix), _lib.path
with iokernel.open(sys.argv[1]) as cache:
    assert cache.call("PING") == "PONG"
print("accelerated" if _native.accelerator else "pure")
"""


def run(*command: str | Path, **changed: str) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("IOKERNEL")} | changed
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def build(tmp_path: Path, **changed: str) -> Path:
    """The wheel, from a copy, so that the tree stays as it is."""
    copy = tmp_path / "source"
    shutil.copytree(
        PACKAGE,
        copy,
        ignore=shutil.ignore_patterns("tests", "*.so", "build", "*.egg-info", "__pycache__"),
        dirs_exist_ok=True,
    )
    out = tmp_path / "wheels"
    isolation = [] if not _has_setuptools() else ["--no-build-isolation"]
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run(*pip, *isolation, "--wheel-dir", out, copy, IOKERNEL_LIBRARY=iokernel._lib.path, **changed)
    (wheel,) = out.glob("*.whl")
    return wheel


def _has_setuptools() -> bool:
    try:
        return int(metadata.version("setuptools").split(".")[0]) >= 71
    except metadata.PackageNotFoundError:
        return False


@pytest.fixture(params=["with a compiler", "without"])
def wheel(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return build(tmp_path, **({} if request.param == "with a compiler" else {"CC": "/nonexistent/cc"}))


@pytest.mark.timeout(300)
def test_a_wheel_installs_without_a_compiler(wheel: Path, tmp_path: Path, url: str) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "iokernel/libiokernel.so" in names
    assert "iokernel/iokernel" in names
    assert "iokernel/py.typed" in names
    accelerated = any("_accel" in name and name.endswith(".so") for name in names)
    assert ("-cp310-abi3-linux" in wheel.name) == accelerated
    assert ("-py3-none-linux" in wheel.name) == (not accelerated)

    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    library = Path(sysconfig.get_path("purelib", "venv", {"base": str(home), "platbase": str(home)}))
    # What it depends on is taken from here; the wheel itself is installed by pip.
    for site in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for pattern in ("cffi*", "_cffi_backend*", "pycparser*", "msgpack*"):
            for found in Path(site).glob(pattern):
                (library / found.name).symlink_to(found)
    pip = [sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install", "--quiet", "--no-deps"]
    run(*pip, "--no-index", "--disable-pip-version-check", wheel, PATH=str(home / "bin"))
    said = run(home / "bin" / "python", "-c", PROGRAM, url, PATH=str(home / "bin"))
    assert said.strip() == ("accelerated" if accelerated else "pure")
    script = home / "bin" / "iokernel"
    assert "complete" in run(script, "completion", "bash", PATH=str(home / "bin"))
    assert run(script, "--version", PATH=str(home / "bin")).startswith("iokernel ")
