"""What the program says that it is doing: read back from the slot itself, and from what requests carry."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import iokernel
import pytest
from iokernel import _context


@pytest.fixture
def kernel() -> Iterator[iokernel.Kernel]:
    with iokernel.Kernel() as kernel:
        yield kernel


def slot(kernel: iokernel.Kernel) -> bytes:
    """This thread's slot."""
    return ctypes.string_at(kernel._marker_slot(), 1024)


def shown(kernel: iokernel.Kernel) -> list[str]:
    """The markers that this thread is in, in the order of their serials."""
    found = []
    for serial, length, text in struct.iter_unpack("=II56s", slot(kernel)[64:]):
        if length & 1 << 31:
            found.append((serial, text[: length & 0xFF].decode()))
    return [text for _, text in sorted(found)]


def current(kernel: iokernel.Kernel) -> str | None:
    """The text of the marker that requests carry here."""
    tid, number, _, _ = struct.unpack_from("=4I", slot(kernel))
    assert tid == threading.get_native_id()
    return text_of(kernel, _context.current(kernel.names.area) or number)


def text_of(kernel: iokernel.Kernel, number: int) -> str | None:
    for serial, length, text in struct.iter_unpack("=II56s", slot(kernel)[64:]):
        if serial == number != 0:
            return str(text[: length & 0xFF].decode())
    return None


def test_a_marker_shows_while_inside(kernel: iokernel.Kernel) -> None:
    assert shown(kernel) == []
    with kernel.marker("render invoice", id=7, shop="a") as marker:
        assert marker.text == "render invoice id=7 shop=a"
        assert shown(kernel) == [marker.text] and current(kernel) == marker.text
        with kernel.marker("inner"):
            assert shown(kernel) == [marker.text, "inner"] and current(kernel) == "inner"
        assert shown(kernel) == [marker.text] and current(kernel) == marker.text
    assert shown(kernel) == [] and current(kernel) is None


def test_it_leaves_with_an_exception(kernel: iokernel.Kernel) -> None:
    with pytest.raises(KeyError), kernel.marker("x"):
        raise KeyError
    assert shown(kernel) == []


def test_long_text_is_cut_between_characters(kernel: iokernel.Kernel) -> None:
    with kernel.marker("x" + "ä" * 50) as marker:
        assert marker.text == "x" + "ä" * 27
        assert shown(kernel) == [marker.text]
    with kernel.marker("\ud800\0"):
        assert shown(kernel) == ["? "]


def test_a_marker_is_used_again_inside_of_itself(kernel: iokernel.Kernel) -> None:
    marker = kernel.marker("again")
    for _ in range(100):
        with marker, kernel.marker("between"), marker:
            assert shown(kernel) == ["again", "between", "again"]
        assert shown(kernel) == []


def test_generators_may_leave_in_any_order(kernel: iokernel.Kernel) -> None:
    def inside(text: str) -> Iterator[None]:
        with kernel.marker(text):
            yield

    one, two = inside("one"), inside("two")
    next(one)
    next(two)
    assert next(one, None) is None
    assert shown(kernel) == ["two"] and current(kernel) == "two"
    assert next(two, None) is None
    assert shown(kernel) == [] and current(kernel) is None


def test_more_than_fit_are_counted(kernel: iokernel.Kernel) -> None:
    before = struct.unpack_from("=I", slot(kernel), 12)[0]
    with ExitStack() as stack:
        for at in range(20):
            stack.enter_context(kernel.marker(f"m{at}"))
        assert shown(kernel) == [f"m{at}" for at in range(15)]
        assert current(kernel) == "m14"
        assert struct.unpack_from("=I", slot(kernel), 12)[0] == before + 5
    assert shown(kernel) == [] and current(kernel) is None


def test_each_thread_has_its_own(kernel: iokernel.Kernel) -> None:
    marker = kernel.marker("same")
    serials: set[int] = set()
    problems: list[Any] = []
    inside = threading.Barrier(8)

    def work() -> None:
        for _ in range(100):
            with marker:
                if shown(kernel) != ["same"]:
                    problems.append(shown(kernel))
                serials.add(struct.unpack_from("=I", slot(kernel), 8)[0])
        inside.wait()

    for _ in range(20):
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not problems
    assert len(serials) == 20 * 8 * 100, "no number twice"


def test_threads_without_a_slot_go_on(kernel: iokernel.Kernel) -> None:
    inside, over = threading.Barrier(81), threading.Barrier(81)
    went: list[bool] = []

    def work() -> None:
        with kernel.marker("x"), kernel.marker("y"):
            inside.wait(20)
            over.wait(20)
        went.append(True)

    threads = [threading.Thread(target=work) for _ in range(80)]
    for thread in threads:
        thread.start()
    inside.wait(20)
    over.wait(20)
    for thread in threads:
        thread.join()
    assert len(went) == 80
    with kernel.marker("after"):
        assert shown(kernel) == ["after"]


def test_a_child_has_none_of_its_parents(kernel: iokernel.Kernel) -> None:
    read, write = os.pipe()
    with kernel.marker("outer"):
        pid = os.fork()
        if pid == 0:
            said = [shown(kernel)]
            with kernel.marker("child"):
                said.append(shown(kernel))
            said.append(shown(kernel))
            os.write(write, repr(said).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(read, 1000) == b"[[], ['child'], []]"
        assert shown(kernel) == ["outer"]
    os.close(read)
    os.close(write)


async def test_tasks_do_not_mix_up_their_markers(kernel: iokernel.Kernel) -> None:
    seen: dict[str, set[str | None]] = {}

    marker = kernel.marker("shared")

    async def work(name: str | None) -> None:
        for _ in range(5):
            if name is None:
                await asyncio.sleep(0)
                seen.setdefault("none", set()).add(current(kernel))
                continue
            with kernel.marker(name):
                await asyncio.sleep(0)
                with marker:
                    await asyncio.sleep(0)
                    seen.setdefault(name + " inner", set()).add(current(kernel))
                seen.setdefault(name, set()).add(current(kernel))
                await asyncio.to_thread(lambda: seen.setdefault(name, set()).add(in_thread(name)))

    def in_thread(name: str) -> str | None:
        number = _context.current(kernel.names.area)
        with kernel.marker("thread's own"):
            assert current(kernel) == "thread's own"
        return name if number else None

    await asyncio.gather(*(work(name) for name in ("a", "b", None, "c")))
    assert seen == {
        "a": {"a"}, "b": {"b"}, "c": {"c"}, "none": {None},
        "a inner": {"shared"}, "b inner": {"shared"}, "c inner": {"shared"},
    }  # fmt: skip
    assert shown(kernel) == []


async def test_all_markers_of_tasks_are_shown(kernel: iokernel.Kernel) -> None:
    over = asyncio.Event()

    async def work(at: int) -> None:
        with kernel.marker("task", at=at):
            await over.wait()

    tasks = [asyncio.create_task(work(at)) for at in range(5)]
    await asyncio.sleep(0)
    assert shown(kernel) == [f"task at={at}" for at in range(5)]
    tasks[2].cancel()
    await asyncio.sleep(0.01)
    assert shown(kernel) == [f"task at={at}" for at in (0, 1, 3, 4)]
    over.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert shown(kernel) == []


def test_a_marker_around_a_loop_is_that_of_its_tasks(kernel: iokernel.Kernel) -> None:
    async def main() -> None:
        assert current(kernel) == "main"
        with kernel.marker("inner"):
            assert current(kernel) == "inner"
        assert current(kernel) == "main"

    with kernel.marker("main"):
        asyncio.run(main())
        assert current(kernel) == "main"
    assert shown(kernel) == []


def test_markers_of_another_area_stay_there(tmp_path: Any, kernel: iokernel.Kernel) -> None:
    with iokernel.Kernel(metrics=str(tmp_path / "metrics")) as other, other.marker("there"):
        assert shown(kernel) == []
        assert shown(other) == ["there"]


def test_a_marker_of_a_closed_kernel_is_harmless(kernel: iokernel.Kernel) -> None:
    marker = kernel.marker("late")
    kernel.close()
    thread = threading.Thread(target=lambda: marker.__enter__().__exit__(None, None, None))
    thread.start()
    thread.join()
    with marker:
        pass
