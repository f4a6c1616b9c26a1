"""Long limits of runs, watched over together."""

from __future__ import annotations

import asyncio
import time

import pytest

from handlers.deadlines import Deadlines


async def run(deadlines: Deadlines, limit: float, work: asyncio.Event) -> str:
    me = asyncio.current_task()
    assert me is not None
    deadline = deadlines.enter(limit, me)
    try:
        await work.wait()
    except asyncio.CancelledError:
        if deadlines.leave(deadline):
            return "over"
        raise
    deadlines.leave(deadline)
    return "done"


async def test_a_run_past_its_limit_is_cancelled_once_and_its_task_goes_on() -> None:
    deadlines, never = Deadlines(), asyncio.Event()
    task = asyncio.create_task(run(deadlines, 10, never))
    await asyncio.sleep(0)
    deadlines.check(time.monotonic() + 9)
    await asyncio.sleep(0)
    assert not task.done()
    for _ in range(2):
        deadlines.check(time.monotonic() + 11)
    assert await task == "over"
    assert task.cancelling() == 0


async def test_a_cancel_from_outside_is_not_taken_for_the_limit() -> None:
    deadlines, never = Deadlines(), asyncio.Event()
    task = asyncio.create_task(run(deadlines, 10, never))
    await asyncio.sleep(0)
    deadlines.check(time.monotonic() + 11)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_run_that_has_ended_is_watched_no_more() -> None:
    deadlines, now = Deadlines(), asyncio.Event()
    now.set()
    assert await run(deadlines, 10, now) == "done"
    deadlines.check(time.monotonic() + 11)
    await asyncio.sleep(0)
