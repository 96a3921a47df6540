"""Other interpreters than the first one of CPython: subinterpreters and PyPy. What free threads need."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import iokernel
import msgpack
import pytest
from iokernel._native import accelerator
from support.fixtures import or_skip
from support.loop_program import BETWEEN
from support.loop_scenarios import SCENARIOS
from support.process import program
from support.servers import RedisServer
from support.tap import Told

INTERPRETERS = """
import sys

try:
    import _interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
    create, run = lambda: interpreters.create(isolated=True), interpreters.run_string
    OWN_GIL = sys.version_info >= (3, 12)
else:
    interpreters = _interpreters
    OWN_GIL = sys.argv[2] == "isolated"
    create = lambda: interpreters.create(sys.argv[2])

    def run(number, source):
        failed = interpreters.exec(number, source)
        assert not failed, failed.formatted

IN_ANOTHER = '''
import sys
sys.path[:] = %r
try:
    import iokernel
except ImportError as error:
    assert %r, error
    assert "subinterpreters" in str(error), error
else:
    assert not %r
    assert iokernel._native.accelerator is None
    assert iokernel._native.why_pure
    with iokernel.Kernel(name="sub") as kernel, kernel.open(%r) as db:
        assert db.call("INCR", "interpreters") >= 1
        import asyncio

        async def main():
            await asyncio.gather(*(db("INCR", "interpreters") for _ in range(500)))
            async with db.lease() as conn:
                assert await conn("PING") == "PONG"

        asyncio.run(main())
'''
IN_ANOTHER %= (sys.path, OWN_GIL, OWN_GIL, sys.argv[1])


def another():
    number = create()
    run(number, IN_ANOTHER)
    interpreters.destroy(number)


def own():
    import iokernel

    with iokernel.open(sys.argv[1]) as db:
        for _ in range(100):
            db.call("INCR", "own")
        return iokernel._native.accelerator


for turn in sys.argv[3:]:
    globals()[turn]()
assert (own() is not None) == (ACCELERATED), "the main interpreter has its accelerator, whoever came first"
"""


@pytest.mark.parametrize("turns", [("own", "another", "another", "own"), ("another", "own", "another")], ids="-".join)
@pytest.mark.parametrize("kind", ["legacy", "isolated"])
def test_subinterpreters(script: Callable[..., str], url: str, turns: tuple[str, ...], kind: str) -> None:
    """Each has a kernel of its own, through cffi; where cffi does not support it, importing says so."""
    source = INTERPRETERS.replace("ACCELERATED", repr(accelerator is not None))
    script(source, url, kind, *turns)


def test_a_second_copy_of_the_package(script: Callable[..., str], url: str) -> None:
    """What the accelerator keeps is the first copy's."""
    script(
        """
import sys, iokernel
first = iokernel
for name in [name for name in sys.modules if name.startswith("iokernel")]:
    del sys.modules[name]
import iokernel
assert iokernel is not first and iokernel._native.accelerator is None
for one in (first, iokernel):
    with one.open(sys.argv[1]) as db:
        assert db.call("PING") == db("PING").result(5) == "PONG"
""",
        url,
    )


def test_many_threads(redis: iokernel.Endpoint) -> None:
    """Threads that begin and end all the time, some of them with requests under way."""
    before = threading.active_count()

    def work() -> None:
        for _ in range(20):
            futures = [redis("INCR", "n") for _ in range(10)]
            redis.call("INCR", "n")
            assert all(future.result(10) for future in futures)
        redis("BLPOP", "nothing", 0)

    for _ in range(5):
        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert int(redis.call("GET", "n")) == 5 * 16 * 20 * 11
    assert threading.active_count() == before


@pytest.fixture(scope="module")
def pypy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """PyPy brings cffi; of msgpack it takes the part that is Python."""
    packages: Path = tmp_path_factory.mktemp("packages")
    (packages / "msgpack").symlink_to(Path(msgpack.__file__).parent)
    with or_skip(RedisServer)() as server:
        python = or_skip(program)("pypy3", "pypy3")
        yield Told("loop_program.py", "asyncio", server.url, python=python, options=("-W", "error"), path=str(packages))


@pytest.mark.parametrize("scenario", [*SCENARIOS, *BETWEEN])
def test_pypy(pypy: Told, scenario: str) -> None:
    pypy.check(scenario)


def test_pypy_end(pypy: Told) -> None:
    pypy.check_end()
