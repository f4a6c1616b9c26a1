"""The whole way of an alert, as a person can look at it: from a lock that is held to a webhook, and back."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
async def test_a_held_lock_pends_fires_is_told_acknowledged_and_resolved() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.alerts_tour", cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(180):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, (out.decode(), err.decode())
    steps = [line[9:].split("  ")[0].strip() for line in out.decode().splitlines() if line[5:9] == " s  "]
    assert steps == [
        "server", "pgbench runs", "lock held", "pending", "firing", "delivered", "acknowledged", "lock released",
        "resolved", "delivered", "done",
    ]  # fmt: skip
    assert "acknowledged by ann: looking" in out.decode()
