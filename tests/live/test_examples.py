"""The programs that a newcomer starts from run, and so does every Python block of the documentation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.aiohttp_server import AiohttpServer
from support.program import ROOT
from support.servers import RedisServer

EXAMPLES = sorted((ROOT / "examples" / "python").glob("*.py"))
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LOOPS = ROOT / "docs" / "python-loops.md"
PAGES = [path for path in sorted((ROOT / "docs").glob("**/*.md")) if BLOCK.search(path.read_text()) and path != LOOPS]


def run(path: Path, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", str(path), *arguments]
    found = {**os.environ, "PYTHONPATH": str(ROOT / "bindings" / "python")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=found)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path: Path, redis_server: RedisServer) -> None:
    said = run(path, redis_server.url)
    _, _, session = path.read_text().split('"""')[1].partition("\n$ ")
    _, *promised = session.partition("\n\n")[0].splitlines()
    assert promised == said.splitlines()


@pytest.fixture
def server_url(path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Of what a page is about."""
    if "http" in path.stem:
        with AiohttpServer() as server:
            yield server.url
    elif path.stem == "postgres":
        yield request.getfixturevalue("shared_postgres_server").url
    else:
        yield request.getfixturevalue("redis_server").url


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_page(path: Path, server_url: str) -> None:
    """Its blocks in order, as one program that has `url`, the address of an empty server."""
    text = path.read_text()
    names: dict[str, Any] = {"__name__": "page", "url": server_url}
    for block in BLOCK.finditer(text):
        # Errors name the line of the page.
        above = "\n" * (text.count("\n", 0, block.start()) + 1)
        exec(compile(above + block[1], path, "exec"), names)


def test_readme(redis_server: RedisServer, tmp_path: Path) -> None:
    """Each block is a program, whose servers are those that are there."""
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    with AiohttpServer() as http:
        for at, block in enumerate(blocks):
            path = tmp_path / f"block{at}.py"
            path.write_text(
                block.replace("redis://127.0.0.1:6379", redis_server.url).replace("https://api.internal", http.url)
            )
            run(path)
    assert len(blocks) >= 3


@pytest.mark.parametrize("at", range(len(BLOCK.findall(LOOPS.read_text()))))
def test_loops(at: int, redis_server: RedisServer, tmp_path: Path) -> None:
    """Each block is a program of its own: a process is for one framework."""
    block = BLOCK.findall(LOOPS.read_text())[at]
    path = tmp_path / "program.py"
    path.write_text(block.replace("redis://127.0.0.1:6379", redis_server.url))
    run(path)


@pytest.mark.parametrize("server", [[], ["--listener"]], ids=["redis-server", "listener"])
def test_demo(server: list[str], request: pytest.FixtureRequest) -> None:
    """A short run without redis-py beside it: it fails by itself if what it says was not seen."""
    if not server:
        request.getfixturevalue("redis_server")
    said = run(ROOT / "examples" / "demo.py", "--alone", "--seconds", "3", *server)
    assert "seen: one connection served 500 tasks" in said
    assert max(map(len, said.splitlines())) <= 100
