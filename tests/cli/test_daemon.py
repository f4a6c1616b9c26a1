"""The real daemon as a process: what it says at its start, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

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
    assert daemon.stderr is not None
    async with asyncio.timeout(30):
        while b"leading the feed" not in (line := await daemon.stderr.readline()):
            assert line, "the daemon ended before it led the feed"
        daemon.send_signal(how)
        _out, err = await daemon.communicate()
    assert (daemon.returncode, b"Traceback" in err) == (0, False)
