"""The cache's check of itself: wrong values are found, right ones are not suspected, and nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import structlog

import pipeline
from handlers.cache import Cache
from handlers.cache_check import Witness
from handlers.cache_seams import Loaded
from pipeline.core.cache_check import Violation
from pipeline.core.cache_namespace import SAMPLED
from pipeline.core.snapshot import Snapshot
from pipeline.db.cache import CacheDatabase
from pipeline.db.connection import Database
from tests.conftest import eventually
from tests.flow.cache_kit import TOTAL, Clock, Feed, clock_fixture, feed_fixture, update  # noqa: F401

Read = Any


class Checked:
    """A cache whose samples are checked when the test says so."""

    def __init__(self, cache: Cache, feed: Feed, clock: Clock) -> None:
        self.cache, self.feed, self.clock = cache, feed, clock
        self.check = cache.self_check
        self.alarms: list[Violation] = []

    async def sample(self, read: Read) -> None:
        """One hit of `read` is sampled."""
        for _ in range(SAMPLED + 2):
            await read()
        self.check.arm()
        await read()
        assert self.check._sample is not None

    async def judge(self, *, prove: bool = True) -> None:
        """Check what is sampled; the feed goes on meanwhile."""
        sample, self.check._sample = self.check._sample, None
        assert sample is not None
        task = asyncio.ensure_future(self.check.check(sample))
        while prove and not task.done():
            await asyncio.sleep(0.01)
            self.clock.now += 0.01
            await self.feed.prove()
        await task

    @property
    def found(self) -> tuple[int, int, int, dict[str, int]]:
        """Checks, those explained, violations, and what could not be checked."""
        tally = self.check.tally
        return tally.checks, tally.explained, tally.violations, dict(tally.uncheckable)


@pytest.fixture(name="cache")
async def cache_fixture(db: Database, clock: Clock) -> Cache:
    return Cache(prober=CacheDatabase(db), clock=clock)


@pytest.fixture
async def checked(cache: Cache, feed: Feed, clock: Clock) -> Checked:
    checked = Checked(cache, feed, clock)

    async def alarm(violation: Violation) -> None:
        checked.alarms.append(violation)

    cache.self_check.alarm = alarm
    return checked


async def silently(sql: asyncpg.Connection, total: int) -> None:
    """Change order 1 so that no feed tells of it."""
    await sql.execute("update orders set total = $1 where id = 1", total)


async def test_a_right_value_is_found_right(checked: Checked) -> None:
    async def read() -> Any:
        return await checked.cache.query(TOTAL, 1, tags="orders:1")

    await checked.sample(read)
    await checked.judge(prove=False)
    assert checked.found == (1, 0, 0, {})
    status = checked.cache.status()
    assert (status.fresh_within_1s_total, status.fresh_within_60s_total, status.fresh_within_1s) == (1, 1, 0.5)
    assert status.bypassed_total == 0


async def test_a_change_that_nobody_told_is_a_violation_and_its_tags_go(
    checked: Checked, sql: asyncpg.Connection
) -> None:
    @checked.cache.cached(tags="orders:{number}")
    async def total(number: int) -> Any:
        return (await checked.cache.query(TOTAL, number, tags=f"orders:{number}"))[0]["total"]

    await checked.sample(lambda: total(1))
    await silently(sql, 77)
    assert await total(1) == 10
    with structlog.testing.capture_logs() as logs:
        await checked.judge()
    assert checked.found == (1, 0, 1, {})
    (violation,) = checked.cache.violations()
    assert violation.namespace.endswith("total")
    assert (violation.key, violation.tags, violation.tables) == ("1", ("orders:1",), ("orders",))
    assert len(violation.key_hash) == 16
    assert checked.alarms == [violation]
    (said,) = [line for line in logs if line["log_level"] == "error"]
    assert (said["namespace"], said["tags"], said["key"]) == (
        violation.namespace,
        violation.tags,
        violation.key_hash,
    )
    assert checked.cache.status().fresh_within_1s == 0
    assert checked.cache.status().bypassed_total == 0  # reading again is no request
    assert await total(1) == 77


async def test_violations_of_one_namespace_alarm_once_a_minute(checked: Checked, sql: asyncpg.Connection) -> None:
    async def read() -> Any:
        return await checked.cache.query(TOTAL, 1, tags="orders:1")

    for total, alarms in ((77, 1), (78, 1), (79, 2)):
        checked.clock.now += 40
        await checked.feed.prove()
        await checked.sample(read)
        await silently(sql, total)
        await checked.judge()
        assert len(checked.alarms) == alarms
    assert len(checked.cache.violations()) == 3


async def test_a_change_on_its_way_explains_the_difference(checked: Checked, sql: asyncpg.Connection) -> None:
    async def read() -> Any:
        return await checked.cache.query(TOTAL, 1, tags="orders:1")

    await checked.sample(read)
    xid = await update(sql, 77)
    task = asyncio.ensure_future(checked.judge(prove=False))
    await asyncio.sleep(0.1)
    assert not task.done()
    checked.feed.change(xid, "1")
    await task
    assert checked.found == (1, 1, 0, {})
    assert checked.cache.status().fresh_within_1s_total == 1


async def test_a_change_of_another_row_explains_nothing(checked: Checked, sql: asyncpg.Connection) -> None:
    async def read() -> Any:
        return await checked.cache.query(TOTAL, 1, tags="orders:1")

    await checked.sample(read)
    checked.feed.change(await update(sql, 77), "2")
    await checked.judge()
    assert checked.found == (1, 0, 1, {})


async def test_a_change_that_is_told_again_explains_nothing(checked: Checked, sql: asyncpg.Connection) -> None:
    async def read() -> Any:
        return await checked.cache.query(TOTAL, 1, tags="orders:1")

    old = await update(sql, 11)
    checked.feed.change(old, "1")
    await checked.feed.prove()
    await checked.sample(read)
    await silently(sql, 77)
    checked.feed.change(old, "1")
    await checked.judge()
    assert checked.found == (1, 0, 1, {})


async def test_a_shared_object_that_somebody_changed_is_a_violation(checked: Checked) -> None:
    async def read() -> Any:
        return await checked.cache.query(TOTAL, 1, tags="orders:1")

    await checked.sample(read)
    (await read())[0]["total"] = 0
    await checked.judge()
    assert checked.found == (1, 0, 1, {})


async def test_what_cannot_be_judged_is_counted_apart_and_left_alone(checked: Checked) -> None:
    numbers = iter(range(1000))

    async def unsteady() -> Any:
        await checked.cache.query(TOTAL, 1, tags="orders:1")
        return next(numbers)

    async def elsewhere() -> Any:
        return next(numbers)

    async def incomparable() -> Any:
        await checked.cache.query(TOTAL, 1, tags="orders:1")
        return object()

    calls = iter([1])

    async def failing() -> Any:
        await checked.cache.query(TOTAL, 1, tags="orders:1")
        return next(calls, None) or 1 / 0

    reasons: dict[str, int] = {}
    for function, reason in (
        (unsteady, "unsteady"),
        (elsewhere, "no snapshot"),
        (incomparable, "incomparable"),
        (failing, "failed"),
    ):
        cached = checked.cache.cached(tags="orders:1")(function)
        await checked.sample(cached)
        await checked.judge()
        reasons[reason] = 1
        assert checked.found == (0, 0, 0, reasons)
        for _ in range(SAMPLED):
            await cached()
        checked.check.arm()
        assert not checked.check._armed
    assert checked.cache.status().uncheckable_total == 4
    assert checked.cache.status().fresh_within_1s is None


async def test_what_reads_an_older_state_is_not_judged(checked: Checked, sql: asyncpg.Connection) -> None:
    older = Snapshot.parse(await sql.fetchval("select pg_current_snapshot()::text"))
    checked.feed.change(await update(sql, 11), "1")
    await checked.feed.prove()
    read = [Loaded(11, None), Loaded(10, older)]

    async def standby() -> Any:
        return read.pop(0)

    cached = checked.cache.cached(tags="orders:1", check=True)(standby)
    await checked.sample(cached)
    await checked.judge()
    assert checked.found == (0, 0, 0, {"older state": 1})


async def test_a_gap_in_the_feed_leaves_nothing_to_say(checked: Checked, sql: asyncpg.Connection) -> None:
    async def read() -> Any:
        return await checked.cache.query(TOTAL, 1, tags="orders:1")

    await checked.sample(read)
    await silently(sql, 77)
    checked.cache.on_flush("a gap")
    await checked.judge()
    assert checked.found == (0, 0, 0, {"interrupted": 1})


async def test_a_writer_may_vouch_for_a_function_or_forbid_that_it_is_called_again(checked: Checked) -> None:
    value = [1]

    async def read() -> list[int]:
        return list(value)

    vouched = checked.cache.cached(tags="orders:1", check=True)(read)
    await checked.sample(vouched)
    value.append(2)
    await checked.judge()
    assert checked.found == (1, 0, 1, {})

    async def other() -> int:
        return 1

    forbidden = checked.cache.cached(tags="orders:1", check=False)(other)
    for _ in range(SAMPLED + 1):
        await forbidden()
    checked.check.arm()
    assert not checked.check._armed


async def test_values_that_no_change_ends_are_not_checked(checked: Checked) -> None:
    @checked.cache.cached(tags=(), ttl=60)
    async def by_time() -> Any:
        return await checked.cache.source.read(TOTAL, (1,))

    for _ in range(SAMPLED + 1):
        await by_time()
    checked.check.arm()
    assert not checked.check._armed


async def test_arming_changes_nothing_of_what_is_served(checked: Checked, sql: asyncpg.Connection) -> None:
    async def read() -> Any:
        return await checked.cache.query(TOTAL, 1, tags="orders:1", stale_while_revalidate=60)

    for _ in range(SAMPLED + 1):
        await read()
    (entry,) = checked.cache.core.store.entries.values()
    plain_until = entry.plain_until
    hits = checked.cache.status().hits_total
    checked.check.arm()
    assert entry.plain_until < 0
    assert await read() is entry.value
    assert entry.plain_until == plain_until
    assert checked.cache.status().hits_total == hits + 1
    checked.check._sample = None
    for _ in range(SAMPLED):
        await read()
    checked.check.arm()
    checked.feed.change(await update(sql, 77), "1")
    checked.check.disarm()
    assert entry.plain_until < 0
    await read()
    await eventually(lambda: entry not in checked.cache.core.store.entries.values())
    assert (await read())[0]["total"] == 77


async def test_the_witness_passes_everything_on(db: Database) -> None:
    witness = Witness(CacheDatabase(db))
    assert (await witness.probe()).server
    assert await witness.invalidate(["a"], None) > 0
    rows, snapshot = await witness.read("select 1 as one", ())
    assert (rows, witness.told) == ([{"one": 1}], [snapshot])


@pytest.fixture
async def client(dsn: str, sql: asyncpg.Connection) -> AsyncIterator[pipeline.Client]:
    await sql.execute("create table orders (id int primary key, total int)")
    await sql.execute("insert into orders select n, 10 * n from generate_series(1, 3) n")
    async with pipeline.connect(dsn) as opened:
        await eventually(lambda: opened.cache.healthy().ok, within=20)
        yield opened


async def test_a_running_client_finds_that_a_table_is_not_watched_and_raises_an_alert(
    client: pipeline.Client, sql: asyncpg.Connection
) -> None:
    cache = client.cache

    async def checked(checks: int) -> bool:
        for _ in range(SAMPLED):
            await cache.query(TOTAL, 1, tags="orders:1")
        return cache.status().checks_total >= checks

    await eventually(lambda: checked(1), within=20)
    assert cache.status().violations_total == 0
    await sql.execute("update orders set total = 999 where id = 1")
    await eventually(lambda: checked(2), within=20)
    assert cache.status().violations_total == 1
    raised = "select severity, message from pipeline.alert_inbox where name = 'cache_violation' and raised"
    said = await eventually(lambda: sql.fetchrow(raised), within=20)
    assert said["severity"] == "critical"
    assert said["message"].endswith("depends on orders")
    assert (await cache.query(TOTAL, 1, tags="orders:1"))[0]["total"] == 999


async def test_a_client_that_is_told_not_to_checks_nothing(dsn: str) -> None:
    client = pipeline.connect(dsn, self_check=False)
    assert client.cache.self_check.name not in client._supervisor.states
