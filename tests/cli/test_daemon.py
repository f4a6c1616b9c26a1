"""The real daemon as a process: what it says at its start, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import asyncpg
import psutil
import pytest

from tests.cli.conftest import clean_environment

RUN = Path(__file__).parents[2] / "run.py"
Start = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def start(dsn: str, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts `pgreflex` with these arguments on the test's database; none is left behind."""
    started: list[asyncio.subprocess.Process] = []

    async def one(*args: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(RUN), *args, cwd=tmp_path, env=clean_environment(DATABASE_URL=dsn),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield one
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize("verb", ["run", "demo"])
async def test_a_port_that_is_taken_ends_the_program_with_an_explanation(start: Start, verb: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        daemon = await start(verb, "--port", str(port))
        async with asyncio.timeout(30):
            _out, err = await daemon.communicate()
    assert daemon.returncode == 1
    assert f"error[busy]: Port {port} is taken".encode() in err
    assert b"hint: Choose one with --port" in err
    assert b"Traceback" not in err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_drains_the_daemon(start: Start, how: signal.Signals) -> None:
    daemon = await start("run", "--port", "0")
    await read_until(daemon.stderr, b"leading the feed", 30)
    async with asyncio.timeout(30):
        daemon.send_signal(how)
        _out, err = await daemon.communicate()
    assert (daemon.returncode, b"Traceback" in err) == (0, False)


async def read_until(stream: asyncio.StreamReader | None, text: bytes, seconds: float) -> bytes:
    """What the program says up to the line that holds `text`. Fails when it ends before, or is too late."""
    assert stream is not None
    said = b""
    async with asyncio.timeout(seconds):
        while text not in said:
            line = await stream.readline()
            assert line, f"the program ended before it said {text!r}: {said.decode()}"
            said += line
    return said


async def test_a_second_ctrl_c_leaves_at_once_though_a_job_still_runs(
    start: Start, dsn: str, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(
        "import asyncio, pipeline\n\n"
        "@pipeline.task(name='slow')\n"
        "async def slow(job):\n    print('the job runs', flush=True)\n    await asyncio.sleep(60)\n"
    )
    daemon = await start("run", "--port", "0", "--import", "slow")
    await read_until(daemon.stderr, b"leading the feed", 30)
    await sql.execute("select pipeline.enqueue('slow')")
    await read_until(daemon.stdout, b"the job runs", 30)
    daemon.send_signal(signal.SIGINT)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await daemon.wait()  # it drains, and the job takes a minute
    daemon.send_signal(signal.SIGINT)
    async with asyncio.timeout(5):
        await daemon.wait()
    assert daemon.returncode == 130


@pytest.mark.slow
async def test_the_demo_shows_a_whole_round_and_leaves_no_process_behind(start: Start) -> None:
    demo = await start("demo", "--plain", "--port", "0")
    await read_until(demo.stdout, b"ready after", 60)
    family = psutil.Process(demo.pid).children(recursive=True)
    names = {name for one in family for name in one.cmdline()[:3]}
    assert any(name.endswith("/pgbench") for name in names)
    assert "pipeline.app.demo_reader" in names
    await read_until(demo.stderr, b"alert firing", 60)
    told = await read_until(demo.stdout, b"slow updates firing", 30)
    await read_until(demo.stderr, b"alert resolved", 60)
    last = told.splitlines()[-1].decode()
    assert not any(f"{figure} –" in last for figure in ("events/s", "delivery p99", "cache hits", "jobs done"))
    family = psutil.Process(demo.pid).children(recursive=True)
    demo.send_signal(signal.SIGINT)
    async with asyncio.timeout(30):
        _out, err = await demo.communicate()
    assert (demo.returncode, b"Traceback" in err) == (0, False)
    assert [one for one in family if one.is_running()] == []
