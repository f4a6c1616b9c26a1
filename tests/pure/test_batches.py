"""Many jobs in one call."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from handlers.batches import run_batch
from handlers.endings import spread
from handlers.running import run
from pipeline.core.directives import Cancel, Discard, Snooze
from pipeline.core.job import Job, Outcome
from pipeline.errors import TaskError
from pipeline.registry import Registry
from tests.pure.test_running import CallNext, job

JOBS = [job(id=n, args={"n": n}) for n in (1, 2, 3)]


async def ended(function: Any, jobs: list[Job] = JOBS, held_for: Any = (), **options: Any) -> list[Outcome]:
    registry = options.pop("registry", None) or Registry()
    task = registry.add_task(function, name="t", batch=10, **options)
    return await run_batch(jobs, task, registry, Random(1), held_for=held_for)


def steps(outcomes: list[Outcome]) -> list[tuple[int, str, str | None]]:
    return [(one.job.id, one.step, one.result) for one in outcomes]


async def test_a_batch_may_answer_nothing_a_list_or_a_dict() -> None:
    async def nothing(jobs: list[Job]) -> None:
        assert [job.args["n"] for job in jobs] == [1, 2, 3]

    async def listed(jobs: list[Job]) -> list[Any]:
        return [job.args["n"] * 10 for job in jobs]

    def named(jobs: list[Job]) -> dict[int, Any]:
        return {1: "a", 2: Snooze(5), 3: ValueError("bad")}

    assert steps(await ended(nothing)) == [(1, "finish", None), (2, "finish", None), (3, "finish", None)]
    assert steps(await ended(listed)) == [(1, "finish", "10"), (2, "finish", "20"), (3, "finish", "30")]
    outcomes = await ended(named)
    assert steps(outcomes) == [(1, "finish", '"a"'), (2, "snooze", None), (3, "retry", None)]
    assert outcomes[2].error == "ValueError: bad"


async def test_a_batch_that_raises_fails_all_and_each_by_its_own_attempts() -> None:
    async def boom(jobs: list[Job]) -> None:
        raise KeyError("x")

    async def give_up(jobs: list[Job]) -> None:
        raise Discard("useless")

    jobs = [job(id=1), job(id=2, attempt=3)]
    assert steps(await ended(boom, jobs)) == [(1, "retry", None), (2, "fail", None)]
    assert [one.step for one in await ended(give_up, jobs)] == ["fail", "fail"]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [([1], "has 1 entries for 3 jobs"), ({9: 1}, "names 9"), ({"1": 1}, "names '1'"),
     (7, "is a int"), ("abc", "is a str")],
)  # fmt: skip
async def test_an_answer_that_cannot_be_shared_out_fails_all(answer: Any, problem: str) -> None:
    async def wrong(jobs: list[Job]) -> Any:
        return answer

    outcomes = await ended(wrong)
    assert [one.step for one in outcomes] == ["retry"] * 3
    assert all(problem in (one.error or "") for one in outcomes)
    with pytest.raises(TaskError):
        spread(answer, JOBS)


async def test_one_timeout_holds_for_all_and_it_is_the_shortest() -> None:
    async def slow(jobs: list[Job]) -> None:
        await asyncio.sleep(60)

    jobs = [job(id=1, timeout=50.0), job(id=2, timeout=0.02), job(id=3)]
    outcomes = await asyncio.wait_for(ended(slow, jobs, timeout=40), 5)
    assert all("took longer than its timeout of 0.02 s" in (one.error or "") for one in outcomes)


async def test_jobs_that_have_expired_are_left_out() -> None:
    seen: list[list[int]] = []

    async def note(jobs: list[Job]) -> list[int]:
        seen.append([job.id for job in jobs])
        return [job.id for job in jobs]

    jobs = [job(id=1), job(id=2, expires_in=1.0), job(id=3, expires_in=9.0)]
    outcomes = await ended(note, jobs, held_for=[5, 5, 5])
    assert steps(outcomes) == [(1, "finish", "1"), (2, "expire", None), (3, "finish", "3")]
    assert [one.step for one in await ended(note, [jobs[1]], held_for=[5])] == ["expire"]
    assert seen == [[1, 3]]


async def test_middleware_stands_around_each_job_and_the_call_is_made_once() -> None:
    registry, trace = Registry(), list[Any]()

    async def around(job: Job, call_next: CallNext) -> Any:
        if job.id == 1:
            raise Cancel("skipped")
        if job.id == 4:
            return "kept from it"
        trace.append(job.id)
        try:
            return [await call_next(job)]
        finally:
            trace.append(-job.id)

    async def call(jobs: list[Job]) -> list[Any]:
        trace.append([job.id for job in jobs])
        return ["two", ValueError("three")]

    registry.add_middleware(around)
    outcomes = await ended(call, [job(id=n) for n in (1, 2, 3, 4)], registry=registry, timeout=5)
    assert steps(outcomes) == [
        (1, "cancel", None), (2, "finish", '["two"]'), (3, "retry", None), (4, "finish", '"kept from it"'),
    ]  # fmt: skip
    assert trace == [2, 3, [2, 3], -2, -3]
    assert steps(await ended(call, [job(id=4)], registry=registry)) == [(4, "finish", '"kept from it"')]
    assert [] not in trace


async def test_a_job_of_a_batch_runs_once_whatever_its_middleware_does() -> None:
    registry, calls = Registry(), list[int]()

    async def twice(job: Job, call_next: CallNext) -> Any:
        await call_next(job)
        await call_next(job)

    async def call(jobs: list[Job]) -> None:
        calls.append(len(jobs))

    registry.add_middleware(twice)
    outcomes = await ended(call, registry=registry)
    assert [one.step for one in outcomes] == ["retry"] * 3
    assert "call_next was called twice" in (outcomes[0].error or "")
    assert calls == [3]


@pytest.mark.parametrize("layered", [False, True])
async def test_a_batch_that_is_cancelled_from_outside_ends_at_once(layered: bool) -> None:
    registry, began = Registry(), asyncio.Event()

    async def slow(jobs: list[Job]) -> None:
        began.set()
        await asyncio.sleep(60)

    async def around(job: Job, call_next: CallNext) -> Any:
        return await call_next(job)

    async def cancels_itself(jobs: list[Job]) -> None:
        raise asyncio.CancelledError

    if layered:
        registry.add_middleware(around)
    assert [one.step for one in await ended(cancels_itself, registry=registry)] == ["retry"] * 3
    registry.tasks.clear()
    running = asyncio.ensure_future(ended(slow, registry=registry))
    await began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 5)


async def test_any_arguments_can_be_added_for_a_batch_and_one_job_alone_is_a_batch_of_one() -> None:
    async def listed(jobs: list[Job]) -> list[Any]:
        return [job.args if "x" in job.args else Cancel("no x") for job in jobs]

    registry = Registry()
    task = registry.add_task(listed, name="t", batch=10, concurrency_key="shop:{shop}", redact=("x",))
    task.check({"x": 1, "job": 2, "jobs": 3})
    assert task.key({"shop": 7}) == "shop:7"
    assert (await run(job(args={"x": 1}), registry, Random(1))).result == '{"x":1}'
    ended = await run(job(), registry, Random(1))
    assert (ended.step, ended.error) == ("cancel", "no x")
