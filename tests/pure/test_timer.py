"""Spans, labels and single timings of one's own code: what they count, and that they never stand in the way."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

import pipeline
from pipeline.app import timing
from pipeline.core import timing_context
from pipeline.core.timing_context import current_labels, labelled
from pipeline.core.window import Windows


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Windows:
    """The recorder of the process, a new one."""
    windows = Windows(lambda: 100.0)
    monkeypatch.setattr(timing, "recorder", windows)
    return windows


def seen(recorder: Windows) -> dict[str, tuple[int, int]]:
    """Count and errors of each series."""
    return {part.series.text: (part.digest.count, part.errors) for part in recorder.take(None)}


async def test_a_block_is_timed_with_and_without_async(recorder: Windows) -> None:
    with pipeline.timer("a", kind="x"):
        pass
    async with pipeline.timer("a", kind="x"):
        await asyncio.sleep(0.01)
    [part] = recorder.take(None)
    assert (part.series.text, part.series.source, part.digest.count) == ('a{kind="x"}', "span", 2)
    assert part.digest.low < 5 < part.digest.high


async def test_an_exception_counts_as_an_error_and_passes_through(recorder: Windows) -> None:
    with pytest.raises(KeyError), pipeline.timer("a"):
        raise KeyError
    with pytest.raises(KeyError):
        async with pipeline.timer("a"):
            raise KeyError
    assert seen(recorder) == {"a": (2, 2)}


async def test_functions_are_timed_plain_and_async_and_stay_what_they_are(recorder: Windows) -> None:
    @pipeline.timer("plain")
    def plain(number: int) -> int:
        """Halve."""
        return 10 // number

    @pipeline.timer("async")
    async def other(number: int) -> int:
        await asyncio.sleep(0)
        return 10 // number

    async def partly(number: int, extra: int) -> int:
        return await other(number) + extra

    assert (plain(5), plain.__name__, plain.__doc__) == (2, "plain", "Halve.")
    assert asyncio.iscoroutinefunction(other)
    assert await asyncio.gather(*(other(5) for _ in range(10))) == [2] * 10
    assert await pipeline.timer("part")(functools.partial(partly, extra=1))(5) == 3
    with pytest.raises(ZeroDivisionError):
        plain(0)
    with pytest.raises(ZeroDivisionError):
        await other(0)
    assert seen(recorder) == {"plain": (2, 1), "async": (12, 1), "part": (1, 0)}


def test_a_generator_function_is_refused_with_a_hint() -> None:
    def some() -> Iterator[int]:
        yield 1

    async def others() -> AsyncIterator[int]:
        yield 1

    for function in (some, others):
        with pytest.raises(pipeline.PgreflexError, match="generator function") as caught:
            pipeline.timer("a")(function)
        assert "with pipeline.timer" in (caught.value.hint or "")


def test_one_timer_may_be_entered_again_inside_itself(recorder: Windows) -> None:
    timer = pipeline.timer("a")
    with timer, timer:
        pass
    assert seen(recorder) == {"a": (2, 0)}


async def test_labels_nest_and_hold_in_tasks_and_threads_that_are_started_inside(recorder: Windows) -> None:
    async def inside() -> None:
        pipeline.record("task", 1)
        await asyncio.to_thread(pipeline.record, "thread", 1)

    with pipeline.labels(endpoint="/a", user=7):
        with pipeline.labels(endpoint="/b"):
            task = asyncio.create_task(inside())
        with pipeline.timer("own", user=8):
            pass
        await task
    pipeline.record("outside", 1)
    assert set(seen(recorder)) == {
        'task{endpoint="/b",user="7"}',
        'thread{endpoint="/b",user="7"}',
        'own{endpoint="/a",user="8"}',
        "outside",
    }


def test_labels_may_be_left_in_another_context_than_they_were_entered_in() -> None:
    block = pipeline.labels(a=1)
    threading.Thread(target=block.__enter__).start()
    block.__exit__(None, None, None)
    assert current_labels() == {}


def test_labels_nest_as_deeply_as_tasks_that_start_the_next_one_make_them() -> None:
    known: list[dict[str, object]] = []
    with ExitStack() as blocks:
        blocks.enter_context(labelled({}, late=lambda: known[0] if known else None))
        for turn in range(1_200):
            blocks.enter_context(labelled({"turn": turn, f"first{turn % 2}": turn}))
        assert current_labels() == {"turn": 1_199, "first0": 1_198, "first1": 1_199}
        known.append({"route": "/x"})
        assert current_labels()["route"] == "/x"
        for turn in range(3):
            blocks.enter_context(labelled({"turn": turn}))
        inner = timing_context._held.get()
        assert inner is not None
        assert inner.outer is not None
        assert inner.outer.outer is None, "what is known needs no more of the outside"


def test_a_label_that_is_known_later_reaches_those_who_ask_later_also_inside_of_further_labels() -> None:
    found: dict[str, object] = {}
    with labelled({}, late=lambda: found or None), labelled({"user": 7}):
        assert current_labels() == {"user": 7}
        found["endpoint"] = "/a"
        assert current_labels() == {"user": 7, "endpoint": "/a"}
        assert current_labels() is current_labels()


@pytest.mark.parametrize("bad", [float("nan"), -1.0, "7", None, [1]])
def test_what_cannot_be_recorded_is_counted_and_never_raised(recorder: Windows, bad: object) -> None:
    pipeline.record("a", bad)  # type: ignore[arg-type]
    pipeline.record(bad, 1.0)  # type: ignore[arg-type]
    with pipeline.timer(bad, odd=object()):  # type: ignore[arg-type]
        pass
    with pipeline.timer("a", odd=object()):
        pass
    assert recorder.take(None) == [] or bad == "7"
    assert recorder.rejected_total >= 2


def test_a_process_that_was_forked_has_none_of_its_parents_timings() -> None:
    code = """
import os, threading, pipeline
from pipeline.app.timing import recorder
pipeline.record("a", 1.0)
held = recorder.series("held")
held.add(1.0)
def seen():
    return {part.series.text: part.digest.count for part in recorder.take(None)}
threading.Thread(target=recorder.lock.acquire).start()
child = os.fork()
if not child:
    pipeline.record("b", 1.0)
    held.add(2.0)
    os._exit(seen() != {"b": 1, "held": 1})
assert os.waitpid(child, 0)[1] == 0
recorder.lock = threading.RLock()
assert seen() == {"a": 1, "held": 1}
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
