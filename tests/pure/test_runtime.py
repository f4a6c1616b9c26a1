"""The supervisor: starting, restarting, health, draining."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from pipeline import runtime
from pipeline.errors import LoginFailed
from pipeline.runtime import Health, Service, Supervisor
from tests.conftest import eventually


class Scripted:
    """A service that notes what happens to it and does as it is told."""

    def __init__(
        self,
        name: str,
        notes: list[str],
        *,
        start: Callable[[int], Awaitable[None]] | None = None,
        run: Callable[[int], Awaitable[None]] | None = None,
        stop: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.name = name
        self.starts = 0
        self.notes = notes
        self.stopped = asyncio.Event()
        self._start, self._run, self._stop = start, run, stop

    async def start(self) -> None:
        self.starts += 1
        if self._start is not None:
            await self._start(self.starts)
        self.notes.append(f"{self.name} starts")

    async def run(self) -> None:
        try:
            if self._run is not None:
                await self._run(self.starts)
            else:
                await self.stopped.wait()
            self.notes.append(f"{self.name} ends")
        except asyncio.CancelledError:
            self.notes.append(f"{self.name} is cancelled")
            raise

    async def stop(self) -> None:
        self.notes.append(f"{self.name} is asked")
        if self._stop is not None:
            await self._stop()
        self.stopped.set()

    def healthy(self) -> Health:
        return Health(True, f"{self.name} is fine")


async def for_ever(_nth: int = 0) -> None:
    await asyncio.Event().wait()


async def fail(nth: int) -> None:
    raise OSError(f"failure {nth}")


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The longest that each pause could have been; none takes any time."""
    asked: list[float] = []

    def uniform(low: float, high: float) -> float:
        assert low == 0
        asked.append(high)
        return 0.0

    monkeypatch.setattr(runtime.random, "uniform", uniform)
    return asked


@pytest.fixture
def long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.random, "uniform", lambda _low, _high: 3600.0)


def running(supervisor: Supervisor) -> bool:
    return all(state.running for state in supervisor.states.values())


async def in_time(what: Awaitable[None], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        await what


def test_a_scripted_service_is_a_service() -> None:
    assert isinstance(Scripted("a", []), Service)


def test_two_services_of_one_name_are_refused(notes: list[str]) -> None:
    with pytest.raises(ValueError, match="same name"):
        Supervisor([Scripted("a", notes), Scripted("a", notes)])


async def test_services_start_in_order_and_drain_in_reverse_one_after_the_other(notes: list[str]) -> None:
    async def slowly() -> None:
        await asyncio.sleep(0.02)

    supervisor = Supervisor([Scripted("a", notes), Scripted("b", notes, stop=slowly), Scripted("c", notes)])
    run = asyncio.ensure_future(supervisor.run())
    await eventually(lambda: running(supervisor))
    supervisor.shutdown()
    await in_time(run)
    assert notes == [
        *["a starts", "b starts", "c starts"],
        *["c is asked", "c ends", "b is asked", "b ends", "a is asked", "a ends"],
    ]


async def test_a_service_that_fails_is_started_again_after_pauses_that_double_up_to_a_limit(
    notes: list[str], pauses: list[float]
) -> None:
    async def fail_ten_times(nth: int) -> None:
        if nth <= 10:
            raise OSError("no route")

    service = Scripted("a", notes, start=fail_ten_times)
    supervisor = Supervisor([service])
    supervisor.start()
    await eventually(lambda: running(supervisor))
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 3.0, 3.0, 3.0]
    assert supervisor.states["a"].restarts == 10
    assert supervisor.states["a"].last_error == ""
    await in_time(supervisor.stop())


async def test_after_a_steady_run_the_pauses_begin_anew(
    notes: list[str], pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "STEADY_SECONDS", -1.0)
    supervisor = Supervisor([Scripted("a", notes, run=fail)])
    supervisor.start()
    await eventually(lambda: len(pauses) > 4)
    await in_time(supervisor.stop())
    assert set(pauses) == {0.1}


async def test_a_service_whose_run_returns_early_is_started_again(notes: list[str], pauses: list[float]) -> None:
    async def return_twice(nth: int) -> None:
        if nth > 2:
            await for_ever()

    supervisor = Supervisor([Scripted("a", notes, run=return_twice)], drain_timeout=0.01)
    supervisor.start()
    await eventually(lambda: supervisor.states["a"].restarts == 2 and running(supervisor))
    await in_time(supervisor.stop())


async def test_one_that_fails_does_not_trouble_the_others(notes: list[str], pauses: list[float]) -> None:
    good, bad = Scripted("good", notes), Scripted("bad", notes, run=fail)
    supervisor = Supervisor([good, bad])
    supervisor.start()
    await eventually(lambda: bad.starts > 5)
    assert good.starts == 1
    assert supervisor.states["good"].running
    await in_time(supervisor.stop())


@pytest.mark.usefixtures("long_pauses")
async def test_health_is_the_services_own_while_it_runs_and_its_last_error_while_it_does_not(
    notes: list[str],
) -> None:
    supervisor = Supervisor([Scripted("good", notes), Scripted("bad", notes, run=fail)])
    assert supervisor.health() == {"good": Health(False, "not running"), "bad": Health(False, "not running")}
    supervisor.start()
    await eventually(lambda: supervisor.states["bad"].last_error and supervisor.states["good"].running)
    assert supervisor.health() == {
        "good": Health(True, "good is fine"),
        "bad": Health(False, "OSError: failure 1"),
    }
    await in_time(supervisor.stop())
    assert not supervisor.health()["good"].ok


@pytest.mark.usefixtures("long_pauses")
async def test_a_failure_is_logged_with_its_code(notes: list[str]) -> None:
    async def refuse(_nth: int) -> None:
        raise LoginFailed("no such role")

    supervisor = Supervisor([Scripted("a", notes, start=refuse)])
    with capture_logs() as logs:
        supervisor.start()
        await eventually(lambda: supervisor.states["a"].last_error)
        await in_time(supervisor.stop())
    [line] = logs
    assert (line["service"], line["log_level"]) == ("a", "warning")
    assert line["error"] == f"no such role ({LoginFailed.code})"


async def test_a_service_that_does_not_end_is_cancelled_and_the_others_are_still_asked(notes: list[str]) -> None:
    supervisor = Supervisor([Scripted("a", notes), Scripted("b", notes, run=for_ever)], drain_timeout=0.05)
    supervisor.start()
    await eventually(lambda: running(supervisor))
    with capture_logs() as logs:
        await in_time(supervisor.stop())
    assert "b is cancelled" in notes
    assert [line["service"] for line in logs] == ["b"]
    assert "a is cancelled" not in notes
    assert not any(state.running for state in supervisor.states.values())


async def test_a_service_that_hangs_in_stop_is_cancelled_after_the_drain_timeout(notes: list[str]) -> None:
    supervisor = Supervisor([Scripted("a", notes, stop=for_ever)], drain_timeout=0.05)
    supervisor.start()
    await eventually(lambda: running(supervisor))
    await in_time(supervisor.stop())
    assert notes[-1] == "a is cancelled"


async def test_a_service_that_fails_to_stop_does_not_keep_the_others_from_it(notes: list[str]) -> None:
    supervisor: Supervisor

    async def broken() -> None:
        service.stopped.set()
        raise OSError("broken pipe")

    service = Scripted("b", notes, stop=broken)
    supervisor = Supervisor([Scripted("a", notes), service])
    supervisor.start()
    await eventually(lambda: running(supervisor))
    with capture_logs() as logs:
        await in_time(supervisor.stop())
    assert notes[-2:] == ["a is asked", "a ends"]
    assert [line["error"] for line in logs] == ["OSError: broken pipe"]


@pytest.mark.usefixtures("long_pauses")
async def test_a_stop_during_a_pause_does_not_wait_for_its_end(notes: list[str]) -> None:
    supervisor = Supervisor([Scripted("a", notes, run=fail)], drain_timeout=60)
    supervisor.start()
    await eventually(lambda: supervisor.states["a"].last_error)
    await in_time(supervisor.stop())
    assert notes.count("a starts") == 1


async def test_a_stop_while_a_service_starts_does_not_wait_for_it(notes: list[str]) -> None:
    service = Scripted("a", notes, start=for_ever)
    supervisor = Supervisor([service], drain_timeout=60)
    supervisor.start()
    await eventually(lambda: service.starts)
    await in_time(supervisor.stop())
    assert "a starts" not in notes


async def test_a_second_stop_and_one_before_the_start_are_harmless(notes: list[str]) -> None:
    await in_time(Supervisor([Scripted("z", notes)]).stop())
    supervisor = Supervisor([Scripted("a", notes)])
    supervisor.start()
    await eventually(lambda: running(supervisor))
    await in_time(supervisor.stop())
    await in_time(supervisor.stop())
    assert notes.count("a ends") == 1
    assert not running(supervisor)


async def test_two_stops_at_once_are_harmless(notes: list[str]) -> None:
    async def slowly() -> None:
        await asyncio.sleep(0.02)

    supervisor = Supervisor([Scripted("a", notes, stop=slowly)])
    supervisor.start()
    await eventually(lambda: running(supervisor))
    await asyncio.gather(in_time(supervisor.stop()), in_time(supervisor.stop()))
    assert notes.count("a ends") == 1
    assert "a is cancelled" not in notes


async def test_a_run_that_is_cancelled_drains(notes: list[str]) -> None:
    supervisor = Supervisor([Scripted("a", notes)])
    run = asyncio.ensure_future(supervisor.run())
    await eventually(lambda: running(supervisor))
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await in_time(run)
    assert notes[-2:] == ["a is asked", "a ends"]


async def test_a_failure_while_draining_is_not_followed_by_a_restart(notes: list[str]) -> None:
    async def fail_at_the_end(_nth: int) -> None:
        await service.stopped.wait()
        raise OSError("the last write failed")

    service = Scripted("a", notes, run=fail_at_the_end)
    supervisor = Supervisor([service])
    supervisor.start()
    await eventually(lambda: running(supervisor))
    await in_time(supervisor.stop())
    assert service.starts == 1
    assert supervisor.states["a"].last_error == "OSError: the last write failed"
