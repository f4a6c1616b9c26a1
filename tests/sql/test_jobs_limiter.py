"""The limiter against an exact account of what was allowed when: strict in every window, a sixty-fourth late."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import with_database

START = 1_900_000_000.0
WINDOWS = [1.0, 8.0, 64.0]

steps = st.lists(
    st.tuples(
        # how far the clock goes, in windows; it may step back
        st.sampled_from([0.0, 1 / 128, 1 / 64, 0.25, 0.5, 63 / 64, 1.0, 65 / 64, 2.0, 70.0, -1 / 64, -0.5, -3.0]),
        st.integers(0, 6),
        st.sampled_from([None, None, None, None, None, *WINDOWS]),
    ),
    min_size=1,
    max_size=25,
)


class Account:
    """What was allowed when. times: each as the limiter should count it, by a clock that never steps back."""

    def __init__(self, window: float) -> None:
        self.window = window
        self.times: list[float] = []
        self.newest = 0.0
        self.charged = window

    @property
    def changed(self) -> bool:
        """Whether the window is not the one under which something was last counted."""
        return self.window != self.charged

    def clock(self, now: float) -> float:
        return max(now, self.newest)

    def most(self, rate: int, now: float) -> int:
        return rate - sum(at > self.clock(now) - self.window for at in self.times)

    def least(self, rate: int, now: float) -> int:
        """After a change of the window all count that the ring still holds, until something is counted anew."""
        if self.changed:
            return rate - len(self.times)
        return rate - sum(at > self.clock(now) - self.window * 65 / 64 for at in self.times)

    def count(self, number: int, now: float) -> None:
        at = self.clock(now)
        if self.changed:  # those from before count from now on
            self.times = [at] * len(self.times)
        self.times = [t for t in self.times if _slot(t, self.window) >= _slot(at, self.window) - 64]
        self.times += [at] * number
        self.newest, self.charged = at, self.window


def _slot(at: float, window: float) -> int:
    return int(at // (window / 64))


async def play(sql: asyncpg.Connection, rate: int, plan: list[Any]) -> None:
    await sql.execute("truncate pipeline.limiter")
    now, account = START, Account(1.0)
    for forth, wanted, window in plan:
        now += forth * account.window
        if window is not None:
            account.window = window
        await sql.execute(f"select set_config('pipeline.fake_now', to_timestamp({now!r})::text, false)")
        allowed = await sql.fetchval("select pipeline.allowance('x', $1, $2)", rate, account.window)
        assert account.least(rate, now) <= allowed <= account.most(rate, now), (forth, wanted, window)
        take = min(wanted, allowed)
        if take > 0:
            await sql.execute("select pipeline.charge('x', $1, $2)", take, account.window)
            account.count(take, now)


@pytest.fixture
def scratch(server_dsn: str, template: str) -> Any:
    """A database of its own, for a test that runs its own loop."""
    name = f"{template}_limiter"

    async def send(query: str) -> None:
        connection = await asyncpg.connect(server_dsn)
        await connection.execute(query)
        await connection.close()

    asyncio.run(send(f'create database "{name}" template "{template}"'))
    yield with_database(server_dsn, name)
    asyncio.run(send(f'drop database "{name}" with (force)'))


def test_no_window_ever_holds_more_than_the_rate_and_none_waits_much_too_long(scratch: str) -> None:
    with asyncio.Runner() as runner:
        sql = runner.run(asyncpg.connect(scratch))

        @settings(
            max_examples=150, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(st.integers(1, 8), steps)
        def check(rate: int, plan: list[Any]) -> None:
            runner.run(play(sql, rate, plan))

        try:
            check()
        finally:
            runner.run(sql.close())


async def test_rate_limit_allows_as_often_as_it_says_over_many_sessions(dsn: str) -> None:
    async def knock() -> int:
        connection = await asyncpg.connect(dsn)
        allowed = [await connection.fetchval("select pipeline.rate_limit('door', 7, '1 hour')") for _ in range(10)]
        await connection.close()
        return sum(allowed)

    assert sum(await asyncio.gather(*(knock() for _ in range(4)))) == 7


async def test_rate_limit_keeps_keys_apart_and_refuses_nonsense(sql: asyncpg.Connection) -> None:
    assert await sql.fetchval("select pipeline.rate_limit('a', 1)")
    assert await sql.fetchval("select pipeline.rate_limit('b', 1)")
    for arguments in ("'', 1", "'a', 0", "'a', 1, '0 s'", "null, 1"):
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await sql.fetchval(f"select pipeline.rate_limit({arguments})")


async def test_a_client_cannot_turn_the_clock_of_its_rates(sql: asyncpg.Connection) -> None:
    role = f"client_{uuid.uuid4().hex[:12]}"
    await sql.execute(f"create role {role}; grant usage on schema pipeline to {role}")
    allowed = "select pipeline.rate_limit('a', 1, '1 hour')"
    in_2100 = "select pipeline.now() > '2100-01-01'"
    try:
        await sql.execute(f"set session authorization {role}; set pipeline.fake_now = '2100-01-02'")
        assert await sql.fetchval(allowed)
        await sql.execute("set pipeline.fake_now = '2100-01-03'")
        assert not await sql.fetchval(allowed)
        assert not await sql.fetchval(in_2100)
        await sql.execute("reset session authorization")
        assert await sql.fetchval(in_2100)
        assert await sql.fetchval(allowed)
    finally:
        await sql.execute(f"reset session authorization; drop owned by {role}; drop role {role}")
