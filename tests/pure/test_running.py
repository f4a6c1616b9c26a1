"""One run: from a job to its outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs

from handlers.running import run
from pipeline.core.args import MOST_BYTES
from pipeline.core.directives import Cancel, Discard, Retry, Snooze
from pipeline.core.job import Job, Outcome
from pipeline.core.retry import Backoff
from pipeline.errors import TaskError
from pipeline.registry import Registry, filling, middleware

CallNext = Callable[[Job], Coroutine[Any, Any, Any]]


def job(task: str = "t", args: dict[str, Any] | None = None, **fields: Any) -> Job:
    start = {"queue": "default", "priority": 0, "attempt": 1, "max_attempts": 3, "timeout": None}
    rest = {"created_at": 0.0, "run_at": 0.0, "lease": 1, "waited": 0.0}
    return Job(fields.pop("id", 1), task, args or {}, **{**start, **rest, **fields})  # type: ignore[arg-type]


async def outcome(function: Any, *, fields: dict[str, Any] | None = None, **options: Any) -> Outcome:
    registry = Registry()
    registry.add_task(function, name="t", **options)
    return await run(job(**(fields or {})), registry, Random(1))


def raising(error: BaseException) -> Any:
    async def task(job: Job) -> None:
        raise error

    return task


def returning(value: Any) -> Any:
    async def task(job: Job) -> Any:
        return value

    return task


async def test_arguments_are_converted_before_the_task_is_called() -> None:
    seen: list[Any] = []

    async def task(job: Job, wait: timedelta, n: float = 1) -> None:
        seen.append((wait, n))

    assert (await outcome(task, fields={"args": {"wait": "PT5S"}})).step == "finish"
    assert seen == [(timedelta(seconds=5), 1)]
    wrong = await outcome(task, fields={"args": {"wait": "PT5S", "n": "x"}})
    assert wrong.step == "retry"
    assert wrong.error is not None
    assert "n: expected `float`, got `str`" in wrong.error


@pytest.mark.parametrize("how", [raising, returning])
async def test_a_directive_decides_how_a_run_ends(how: Callable[[Exception], Any]) -> None:
    for directive, step, delay, error in (
        (Retry(7, "the shop is closed"), "retry", 7, "the shop is closed"),
        (Retry(timedelta(minutes=1)), "retry", 60, "the task asked for it"),
        (Snooze(9, "not yet"), "snooze", 9, "not yet"),
        (Snooze(timedelta(hours=1)), "snooze", 3600, None),
        (Cancel("gone"), "cancel", 0, "gone"),
        (Discard("no such order"), "fail", 0, "no such order"),
    ):
        ended = await outcome(how(directive))
        assert (ended.step, ended.delay, ended.error) == (step, delay, error)
        assert ended.ms is not None


async def test_on_the_last_attempt_a_retry_fails_and_a_snooze_does_not() -> None:
    last = {"attempt": 3}
    assert (await outcome(raising(Retry(5)), fields=last)).step == "fail"
    assert (await outcome(raising(Snooze(5)), fields=last)).step == "snooze"


async def test_a_retry_without_a_time_waits_as_the_backoff_says() -> None:
    ended = await outcome(raising(Retry()), backoff=Backoff(first=40, jitter=0))
    assert (ended.step, ended.delay) == ("retry", 40)


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), "5", None, True, 10**12])
def test_a_time_that_cannot_be_meant_is_refused_where_it_is_written(wrong: Any) -> None:
    for make in (Snooze, Retry):
        if wrong is None and make is Retry:
            continue
        with pytest.raises(ValueError, match="is to be"):
            make(wrong)


async def test_a_backoff_of_ones_own_gets_the_attempt_and_the_error() -> None:
    def wait(attempt: int, error: BaseException) -> timedelta:
        return timedelta(seconds=100 * attempt if isinstance(error, KeyError) else 1)

    ended = await outcome(raising(KeyError("x")), backoff=wait, fields={"attempt": 2})
    assert 100 <= ended.delay <= 200


@pytest.mark.parametrize("answer", [None, -1, "soon", float("nan"), True])
async def test_a_backoff_that_answers_nonsense_or_raises_gives_way_to_the_default(answer: Any) -> None:
    def raises(attempt: int, error: BaseException) -> float:
        raise RuntimeError("oh")

    for backoff in (raises, lambda attempt, error: answer):
        with capture_logs() as lines:
            ended = await outcome(raising(ValueError()), backoff=backoff)
        assert ended.step == "retry"
        assert 2.5 <= ended.delay <= 5
        assert "the backoff of a task is wrong; the default is used" in [line["event"] for line in lines]


async def test_a_result_that_cannot_be_kept_fails_the_job_at_once_and_says_why() -> None:
    for value in (object(), "a\0b", {1: {2: object()}}, "x" * (MOST_BYTES - 1)):
        ended = await outcome(returning(value))
        assert (ended.step, ended.result) == ("fail", None)
        assert (ended.error or "").startswith("the result cannot be kept: ")
    assert "it is 1,048,577 bytes of JSON, and may be 1,048,576. Put the data in" in (ended.error or "")
    assert (await outcome(returning("x" * (MOST_BYTES - 2)))).step == "finish"
    for value, text in (("a\\u0000", '"a\\\\u0000"'), ({"a": 1}, '{"a":1}'), (None, None)):
        ended = await outcome(returning(value))
        assert (ended.step, ended.result, ended.error) == ("finish", text, None)


async def test_a_job_that_has_waited_too_long_since_its_claim_does_not_begin() -> None:
    seen: list[int] = []

    async def task(job: Job) -> None:
        seen.append(job.id)

    registry = Registry()
    registry.add_task(task, name="t")
    for held, step in ((0.0, "finish"), (1.9, "finish"), (2.0, "expire")):
        ended = await run(job(expires_in=2.0), registry, Random(1), held_for=held)
        assert ended.step == step
    assert (await run(job(), registry, Random(1), held_for=1e9)).step == "finish"
    assert (await run(job("elsewhere", expires_in=1), registry, Random(1), held_for=2)).step == "expire"
    assert len(seen) == 3


def layered(registry: Registry, trace: list[str]) -> None:
    def layer(name: str, **options: Any) -> None:
        async def around(job: Job, call_next: CallNext) -> Any:
            trace.append(f"{name}>")
            try:
                return await call_next(job)
            except Exception as error:
                trace.append(f"{name}!{type(error).__name__}")
                raise
            finally:
                trace.append(f"<{name}")

        around.__qualname__ = name
        with filling(registry):
            middleware(**options)(around)

    async def task(job: Job) -> str:
        trace.append("run")
        return "done"

    async def fails(job: Job) -> None:
        raise KeyError("x")

    registry.add_task(task, name="t")
    registry.add_task(fails, name="fails")
    layer("a")
    layer("b", queues=["mail"])
    layer("c", tasks=["t"])
    layer("d", tasks=[fails])


async def test_middleware_stands_around_the_runs_that_it_is_for_the_first_outermost() -> None:
    registry, trace = Registry(), list[str]()
    layered(registry, trace)
    ended = await run(job(queue="mail"), registry, Random(1))
    assert (ended.step, ended.result) == ("finish", '"done"')
    assert trace == ["a>", "b>", "c>", "run", "<c", "<b", "<a"]
    trace.clear()
    assert (await run(job("fails"), registry, Random(1))).step == "retry"
    assert trace == ["a>", "d>", "d!KeyError", "<d", "a!KeyError", "<a"]


async def test_middleware_may_replace_the_result_the_job_or_the_end() -> None:
    registry = Registry()

    async def task(job: Job, a: int) -> int:
        return a

    async def changed(job: Job, call_next: CallNext) -> Any:
        if job.id == 2:
            raise Cancel("not today")
        return 10 * await call_next(
            Job(**{**{f: getattr(job, f) for f in job.__struct_fields__}, "args": {"a": 7}})
        )

    registry.add_task(task, name="t")
    registry.add_middleware(changed)
    assert (await run(job(args={"a": 1}), registry, Random(1))).result == "70"
    ended = await run(job(id=2), registry, Random(1))
    assert (ended.step, ended.error) == ("cancel", "not today")


async def test_middleware_sees_the_timeout_of_the_task_and_cannot_hold_a_job_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("handlers.running.AROUND_SECONDS", 0.05)
    registry, seen = Registry(), list[BaseException]()

    async def slow(job: Job) -> None:
        await asyncio.sleep(60)

    async def around(job: Job, call_next: CallNext) -> Any:
        try:
            return await call_next(job)
        except Exception as error:
            seen.append(error)
            await asyncio.sleep(60)

    registry.add_task(slow, name="t", timeout=0.02)
    registry.add_middleware(around)
    ended = await asyncio.wait_for(run(job(), registry, Random(1)), 5)
    assert ended.step == "retry"
    assert "took longer than its timeout of 0.02 s" in (ended.error or "")
    assert [type(error) for error in seen] == [TaskError]


def test_middleware_that_could_not_work_is_refused() -> None:
    registry = Registry()

    def plain(job: Job, call_next: CallNext) -> None: ...

    async def fine(job: Job, call_next: CallNext) -> None: ...

    with pytest.raises(TaskError, match="middleware plain is not async"):
        registry.add_middleware(plain)  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="are lists"):
        registry.add_middleware(fine, tasks="t")
    registry.add_middleware(fine)
    registry.add_middleware(fine, queues=["mail"])
    assert [m.queues for m in registry.middlewares] == [("mail",)]


async def test_an_error_does_not_tell_what_is_redacted() -> None:
    async def pay(job: Job, card: str, order: int) -> None:
        raise ValueError(f"the bank refused {card} for order {order}")

    ended = await outcome(pay, redact=("card",), fields={"args": {"card": "4111-1111", "order": 1234}})
    assert "4111" not in (ended.error or "")
    assert (ended.error or "").startswith("ValueError: the bank refused [redacted] for order 1234")
