"""The same tests without the accelerator; those of `compat`, which take long, by `IOKERNEL_PURE=1 pytest`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(os.environ.get("IOKERNEL_PURE") == "1", reason="this run is pure already")
@pytest.mark.timeout(300)
def test_the_suite_passes_without_the_accelerator() -> None:
    here = Path(__file__)
    left_out = (
        here.name,
        "test_wheel.py",
        "test_compat",
        "test_http_requests",
        "test_http_httpx",
        "test_http_real",
        "test_http_together",
        "test_serve_gunicorn",
        "test_serve_proxies",
        "test_serve_workers",
    )
    others = [str(path) for path in sorted(here.parent.glob("test_*.py")) if not path.name.startswith(left_out)]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *others]
    environment = {**os.environ, "IOKERNEL_PURE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=here.parents[3], check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert re.search(r"\d+ passed", done.stdout)
