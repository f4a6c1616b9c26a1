"""Worker processes that are killed, stopped and asked to end: what the queue promises, holds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from tests.cli.conftest import clean_environment
from tests.conftest import eventually

ROOT = Path(__file__).resolve().parents[2]
TASKS = """
import asyncio
import os

from pipeline import task


def note(word):
    with open("ran", "ab", buffering=0) as file:
        file.write(word.encode() + b"\\n")


@task("warm", batch=300)
async def warm(jobs):
    pass


@task("short")
async def short(job, n):
    note(f"{n}")
    await asyncio.sleep(0.01)


@task("long")
async def long(job):
    note("long")
    await asyncio.sleep(60)
"""

Start = Callable[[], Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def daemon(dsn: str, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts `pgreflex run` with two slots for these tasks; none is left behind."""
    (tmp_path / "tasks.py").write_text(TASKS)
    started: list[asyncio.subprocess.Process] = []

    async def start() -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(ROOT / "run.py"),
            "run", "--port", "0", "--import", "tasks", "--queues", "default:2",
            cwd=tmp_path, env=clean_environment(DATABASE_URL=dsn),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def ran(tmp_path: Path) -> list[str]:
    """What the jobs noted, in the order in which they began."""
    path = tmp_path / "ran"
    return path.read_text().split() if path.exists() else []


async def test_while_processes_connections_and_the_server_die_nothing_is_lost_doubled_or_stuck() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.chaos_jobs",
        cwd=ROOT, env=clean_environment(CHAOS="short", PYTHONPATH=str(ROOT)),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(90):
            out, _ = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    lines = out.decode().splitlines()
    assert "".join(lines[-1:]).startswith("{"), out.decode()
    goals = json.loads(lines[-1])["goals"]
    assert [(goal["name"], goal["detail"]) for goal in goals if not goal["met"]] == [], out.decode()
    assert len(goals) > 20


async def test_sigterm_amid_prefetched_jobs_gives_them_back_unburnt_and_none_runs_twice(
    daemon: Start, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    first = await daemon()
    await sql.execute("select pipeline.enqueue('warm')")
    await eventually(lambda: sql.fetchval("select count(*) = 1 from pipeline.job_archive"), within=30)
    # a queue with batches takes 300 a slot ahead of need, also of other tasks
    await sql.execute(
        "select pipeline.enqueue_many('short', array_agg(jsonb_build_object('n', n)))"
        " from generate_series(1, 500) n"
    )
    await eventually(lambda: sql.fetchval("select sum(cardinality(ids)) = 500 from pipeline.lease"), within=30)
    await eventually(lambda: len(ran(tmp_path)) >= 10)
    asked = time.monotonic()
    first.send_signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        assert await first.wait() == 0
    assert time.monotonic() - asked < 10
    begun = ran(tmp_path)
    assert len(begun) < 400
    left = await sql.fetch("select attempt, lost, pos is null as held, error from pipeline.job")
    assert {tuple(row) for row in left} == {(1, 0, False, None)}
    assert len(left) + len(begun) == 500
    assert await sql.fetchval("select count(*) from pipeline.lease") == 0
    assert await sql.fetchval("select count(*) from pipeline.worker") == 0

    second = await daemon()
    await eventually(lambda: sql.fetchval("select not exists (select from pipeline.job)"), within=40)
    second.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(second.wait(), 20) == 0
    assert sorted(ran(tmp_path), key=int) == [str(n) for n in range(1, 501)]
    rows = await sql.fetch("select state, attempt, count(*) as n from pipeline.job_archive group by 1, 2")
    assert [tuple(row) for row in rows] == [("finished", 1, 501)]


@pytest.mark.parametrize(
    ("signals", "status"),
    [
        ((signal.SIGTERM, signal.SIGTERM), 143),
        ((signal.SIGTERM, signal.SIGINT), 130),
    ],
)
async def test_a_second_signal_ends_the_daemon_at_once_and_its_job_is_run_by_another(
    daemon: Start, sql: asyncpg.Connection, tmp_path: Path, signals: tuple[signal.Signals, ...], status: int
) -> None:
    process = await daemon()
    await sql.execute("select pipeline.enqueue('long')")
    await eventually(lambda: ran(tmp_path) == ["long"], within=30)
    process.send_signal(signals[0])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.7):
            await process.wait()  # it drains, and the job takes a minute
    process.send_signal(signals[1])
    async with asyncio.timeout(3):
        assert await process.wait() == status
    assert await sql.fetchval("select count(*) from pipeline.lease") == 1
    await sql.execute("update pipeline.worker set seen_at = seen_at - interval '1 hour'")
    await daemon()
    await eventually(lambda: ran(tmp_path) == ["long", "long"], within=30)
    assert await sql.fetchval("select attempt from pipeline.job") == 2
