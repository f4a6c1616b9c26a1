"""Tasks in processes of their own: real ones, which hang, die and are ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

from handlers.processes import Processes
from handlers.running import run
from pipeline.core.job import Job, Outcome
from pipeline.registry import Registry, load
from tests.conftest import eventually
from tests.pure.test_running import CallNext, job

ROOT = Path(__file__).resolve().parents[2]
TASKS = """
from __future__ import annotations

import asyncio, ctypes, logging, os, signal, subprocess, sys, time
from datetime import date
from pathlib import Path

from pipeline import Cancel, Discard, Job, Retry, Snooze, task

AT_IMPORT = os.getpid()

def here(name):
    return task(name, process=True, max_attempts=3)

@here("pid")
def pid(job: Job) -> list:
    assert AT_IMPORT == os.getpid()
    return [os.getpid(), os.getppid(), os.getpgrp()]

@here("typed")
async def typed(job: Job, day: date, word: str = "x") -> dict:
    await asyncio.sleep(0)
    return {"year": day.year, "word": word, "id": job.id, "attempt": job.attempt}

@here("print")
def prints(job: Job) -> str:
    print("printed by a task")
    os.write(1, b"written by a task\\n")
    logging.warning("logged by a task")
    assert sys.stdin.read() == ""
    return "said"

@here("end")
def end(job: Job, how: str) -> None:
    if how == "exit":
        os._exit(3)
    if how == "zero":
        os._exit(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "orphan":  # a forked process goes on and holds every descriptor
        ready, tell = os.pipe()
        if os.fork() == 0:
            os.setsid()
            os.write(tell, b"x")
            time.sleep(20)
            os._exit(0)
        os.read(ready, 1)
        os._exit(4)
    if how == "sys.exit":
        sys.exit("enough")
    raise KeyError(how)

@here("say")
def say(job: Job, how: str) -> object:
    if how == "return":
        return Cancel("returned")
    if how == "retry":
        raise Retry(7, "later")
    raise {"snooze": Snooze(9), "cancel": Cancel("gone"), "discard": Discard("bad")}[how]

@here("spin")
def spin(job: Job, note: str) -> None:
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Path(note).write_text(f"{os.getpid()} {helper.pid}")
    while True:
        pass

@here("slow")
def slow(job: Job, note: str) -> str:
    Path(note).write_text(f"{os.getpid()}")
    time.sleep(0.5)
    return "done"

@here("object")
def thing(job: Job) -> object:
    return object()

@here("host")
async def host(job: Job) -> None:
    await job.progress(1)

@here("big")
def big(job: Job, text: str) -> str:
    return text * 2
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Registry]:
    """Writes a module of tasks and loads it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])

    def write(text: str) -> Registry:
        name = f"user_{uuid.uuid4().hex[:8]}"
        (tmp_path / f"{name}.py").write_text(text)
        return load([name], Registry())

    return write


@pytest.fixture
def registry(write: Callable[[str], Registry]) -> Registry:
    return write(TASKS)


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    async with Processes() as processes:
        yield processes


@pytest.fixture
def go(registry: Registry, processes: Processes) -> Any:
    async def go(task: str, timeout: float | None = 30.0, **args: Any) -> Outcome:
        one = job(task, args, timeout=timeout)
        return await asyncio.wait_for(run(one, registry, Random(1), processes=processes), 60)

    return go


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def pids(note: Path, n: int) -> list[int]:
    def read() -> list[int]:
        return [int(word) for word in note.read_text().split()] if note.exists() else []

    return await eventually(lambda: read() if len(read()) == n else None)  # type: ignore[no-any-return]


async def test_a_process_takes_one_job_after_the_other(go: Any) -> None:
    first, second = await go("pid"), await go("pid")
    assert first.step == "finish", first.error
    pid, parent, group = eval(first.result)
    assert first.result == second.result
    assert (pid != os.getpid(), parent, group) == (True, os.getpid(), pid)
    both = await asyncio.gather(go("pid"), go("pid"))
    assert both[0].result != both[1].result


async def test_arguments_and_results_go_over_with_their_types(go: Any) -> None:
    ended = await go("typed", day="2026-01-02")
    assert ended.result == '{"year":2026,"word":"x","id":1,"attempt":1}', ended.error
    wrong = await go("typed", day="soon")
    assert wrong.step == "retry"
    assert "day: invalid RFC3339 encoded date" in wrong.error
    text = "é" * 250_000
    assert (await go("big", text=text)).result == f'"{text * 2}"'


async def test_what_a_task_prints_does_not_disturb(go: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert (await go("print")).result == '"said"'
    out, err = capfd.readouterr()
    assert "printed by a task\nwritten by a task\n" in out
    assert "logged by a task" in err


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("exit", "the process of task end ended before the job did: exit status 3"),
        ("zero", "the process of task end ended before the job did: exit status 0"),
        ("kill", "killed by SIGKILL. The kernel does that when memory runs out."),
        ("segfault", "killed by SIGSEGV"),
        ("orphan", "exit status 4"),
        ("sys.exit", "SystemExit: enough"),
        ("raise", "KeyError: 'raise'\n\n"),
    ],
)
async def test_a_process_that_dies_costs_the_attempt_and_nothing_else(go: Any, how: str, message: str) -> None:
    ended = await go("end", timeout=10.0, how=how)
    assert ended.step == "retry"
    assert message in ended.error
    assert "handlers/" not in ended.error
    assert (await go("pid")).step == "finish"


async def test_directives_come_over(go: Any) -> None:
    for how, step, delay, error in (
        ("retry", "retry", 7, "later"), ("snooze", "snooze", 9, None), ("cancel", "cancel", 0, "gone"),
        ("discard", "fail", 0, "bad"), ("return", "cancel", 0, "returned"),
    ):  # fmt: skip
        ended = await go("say", how=how)
        assert (ended.step, ended.delay, ended.error) == (step, delay, error)


async def test_a_result_that_cannot_be_kept_and_a_worker_that_is_not_there_are_told(go: Any) -> None:
    ended = await go("object")
    assert (ended.step, ended.result) == ("fail", None)
    assert ended.error.startswith("the result cannot be kept: ")
    ended = await go("host")
    assert ended.step == "retry"
    assert "job 1 has no worker to talk to here" in ended.error


async def test_a_task_that_computes_for_too_long_is_ended_with_all_that_it_has_started(
    go: Any, tmp_path: Path
) -> None:
    await go("pid")  # the time to start does not count
    began = time.monotonic()
    ended = await go("spin", timeout=1.0, note=str(tmp_path / "note"))
    assert ended.step == "retry"
    assert "took longer than its timeout of 1 s" in ended.error
    assert time.monotonic() - began < 5
    for pid in await pids(tmp_path / "note", 2):
        await eventually(lambda pid=pid: not alive(pid))


async def test_a_job_that_is_cancelled_ends_its_process(
    registry: Registry, processes: Processes, tmp_path: Path
) -> None:
    one = job("spin", {"note": str(tmp_path / "note")})
    async with asyncio.TaskGroup() as group:
        running = group.create_task(run(one, registry, Random(1), processes=processes))
        spinning = await pids(tmp_path / "note", 2)
        running.cancel()
    for pid in spinning:
        await eventually(lambda pid=pid: not alive(pid))


async def test_signals_to_end_do_not_reach_a_job_before_its_worker_does(
    registry: Registry, processes: Processes, tmp_path: Path
) -> None:
    one = job("slow", {"note": str(tmp_path / "note")})
    async with asyncio.TaskGroup() as group:
        running = group.create_task(run(one, registry, Random(1), processes=processes))
        [pid] = await pids(tmp_path / "note", 1)
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    assert running.result().result == '"done"'


async def test_closing_ends_the_idle_ones_in_good_order(registry: Registry) -> None:
    async with Processes() as processes:
        ended = await run(job("pid"), registry, Random(1), processes=processes)
        pid = eval(ended.result or "")[0]
        [child] = processes._alive
        assert alive(pid)
    assert not alive(pid)
    assert child._process is not None
    assert child._process.get_returncode() == 0


async def test_no_more_idle_processes_are_kept_than_asked_for(registry: Registry) -> None:
    async with Processes(keep=1) as processes:
        await asyncio.gather(*(run(job("pid"), registry, Random(1), processes=processes) for _ in range(3)))
        await eventually(lambda: len(processes._alive) == 1)


async def test_an_idle_process_that_has_died_is_not_used(registry: Registry, processes: Processes) -> None:
    first = await run(job("pid"), registry, Random(1), processes=processes)
    os.kill(eval(first.result or "")[0], signal.SIGKILL)
    second = await eventually(lambda: run(job("pid"), registry, Random(1), processes=processes))
    assert second.step == "finish" or "killed by SIGKILL" in second.error
    assert (await run(job("pid"), registry, Random(1), processes=processes)).step == "finish"


async def test_without_processes_at_hand_a_task_gets_one_that_ends_with_it(registry: Registry) -> None:
    ended = await run(job("pid"), registry, Random(1))
    assert not alive(eval(ended.result or "")[0])


async def test_middleware_in_the_worker_stands_around_the_process(
    registry: Registry, processes: Processes
) -> None:
    async def around(job: Job, call_next: CallNext) -> Any:
        return [os.getpid(), *await call_next(job)]

    registry.add_middleware(around)
    ended = await run(job("pid"), registry, Random(1), processes=processes)
    here, there, parent, _ = eval(ended.result or "")
    assert here == parent == os.getpid() != there


async def test_a_module_that_cannot_be_imported_there_is_told(
    write: Callable[[str], Registry], processes: Processes
) -> None:
    registry = write(
        f"import os\nfrom pipeline import task\nif os.getpid() != {os.getpid()}:\n    raise OSError('not here')\n"
        "@task('t', process=True)\ndef t(job): ...\n"
    )
    ended = await run(job("t"), registry, Random(1), processes=processes)
    assert ended.step == "retry"
    assert (ended.error or "").startswith("OSError: not here")


def worker(tmp_path: Path, note: Path) -> subprocess.Popen[bytes]:
    """A program of its own whose tasks stand in the program itself."""
    (tmp_path / "program.py").write_text(
        TASKS
        + f"""
if __name__ == "__main__":
    from random import Random
    from handlers.running import run
    from pipeline.registry import default
    from tests.pure.test_running import job
    ended = asyncio.run(run(job("typed", {{"day": "2026-01-02"}}), default, Random(1)))
    print(ended.result or ended.error, flush=True)
    asyncio.run(run(job("spin", {{"note": {str(note)!r}}}), default, Random(1)))
"""
    )
    return subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )


async def test_tasks_of_the_main_program_run_and_end_when_it_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "note"
    with worker(tmp_path, note) as program:
        assert program.stdout is not None
        spinning = await pids(note, 2)
        program.kill()
        assert program.stdout.readline() == b'{"year":2026,"word":"x","id":1,"attempt":1}\n'
    for pid in spinning:
        await eventually(lambda pid=pid: not alive(pid))
