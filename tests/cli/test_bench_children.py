"""The processes that a benchmark starts end with it."""

from __future__ import annotations

import sys

import psutil
import pytest

from bench.jobs_child import Child, ChildFailed, child

TALKS = """
import sys
print("noise")
print('{"ready": 7}', flush=True)
sys.stdin.read()
print('{"last": 8}')
"""
DEAF = """
import time
print('{"ready": 1}', flush=True)
time.sleep(60)
"""
FAILS = "raise ValueError('no such column')"


async def test_a_child_is_heard_ends_with_its_input_and_may_have_the_last_word() -> None:
    async with child("talker", [sys.executable, "-c", TALKS]) as one:
        assert await one.hear("ready", 20) == 7
        one.end_input()
        assert await one.hear("last", 20) == 8
    assert one.process.returncode == 0
    async with child("left alone", [sys.executable, "-c", TALKS]) as other:
        pass
    assert other.process.returncode == 0, "the end of the block is the end of its input"


async def test_a_child_that_fails_says_why() -> None:
    with pytest.raises(ChildFailed, match="ValueError: no such column"):
        async with child("broken", [sys.executable, "-c", FAILS]) as one:
            await one.hear("ready", 20)


async def test_no_child_outlives_a_failure_of_the_benchmark() -> None:
    seen: list[Child] = []

    async def fail() -> None:
        async with child("deaf", [sys.executable, "-c", DEAF]) as one:
            await one.hear("ready", 20)
            seen.append(one)
            raise RuntimeError("the benchmark failed")

    with pytest.raises(RuntimeError, match="the benchmark failed"):
        await fail()
    assert not psutil.pid_exists(seen[0].process.pid)
