"""Values that processes share: what one has loaded the others take, and nothing that is out of date.

A process is a client with a follower, a cache and connections of its own; one test has processes of the system.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import msgspec
import pytest

from pipeline.app.client import Client, connect
from tests.conftest import eventually

TOTAL = "select total from orders where id = $1"


class Order(msgspec.Struct):
    id: int
    total: int


class Counted:
    """Loads order 1 through a plain connection, slowly if told to, and counts."""

    def __init__(self, sql: asyncpg.Connection, value: Any = None) -> None:
        self.sql = sql
        self.value = value
        self.calls = 0
        self.pause = 0.0

    async def __call__(self) -> Any:
        self.calls += 1
        await asyncio.sleep(self.pause)
        return await self.sql.fetchval(TOTAL, 1) if self.value is None else self.value


Start = Callable[..., Awaitable[Client]]


@pytest.fixture
async def start(dsn: str, sql: asyncpg.Connection) -> AsyncIterator[Start]:
    """Starts another process, and waits until it may serve."""
    await sql.execute("create table orders (id int primary key, total int)")
    await sql.execute("create table other (id int)")
    await sql.execute("insert into orders select n, 10 * n from generate_series(1, 3) n")
    await sql.execute("select pipeline.watch('orders', keys => '{id}'), pipeline.watch('other')")
    async with AsyncExitStack() as stack:

        async def one(**options: Any) -> Client:
            client = await stack.enter_async_context(connect(dsn, **{"shared": True, **options}))
            await eventually(lambda: client.cache.healthy().ok and client.cache.core.epoch, why="the cache serves")
            return client

        yield one


@pytest.fixture
async def load(sql: asyncpg.Connection) -> Counted:
    return Counted(sql)


async def get(client: Client, load: Counted, key: str = "one", **options: Any) -> Any:
    return await client.cache.get_or_load(key, load, tags="orders:1", **options)


async def share(client: Client, load: Counted) -> Any:
    """Let this process load the value, and wait until it is shared."""
    value = await get(client, load)
    await eventually(lambda: client.shared.figures.stored, why="the value is shared")
    return value


async def heard(client: Client, sql: asyncpg.Connection) -> None:
    """Wait until the process has been told of all that has committed."""
    await sql.execute("insert into other values (1)")
    xid = int(await sql.fetchval("select pg_snapshot_xmax(pg_current_snapshot())::text"))
    core = client.cache.core
    await eventually(lambda: core.position is not None and core.position.xmax >= xid, why="the feed moves on")


async def test_what_one_process_has_loaded_the_others_take(start: Start, load: Counted) -> None:
    one, two = await start(), await start()
    assert await share(one, load) == 10
    assert await get(two, load) == 10
    assert await get(two, load) == 10
    assert load.calls == 1
    assert two.shared.figures.hits == 1


async def test_rows_of_a_query_and_objects_of_a_function_are_shared(start: Start, sql: asyncpg.Connection) -> None:
    one, two = await start(), await start()
    rows = await one.cache.query(TOTAL, 1, tags="orders:1")
    first = one.cache.cached(tags="orders:{order_id}")(load_order)
    order = await first(2)
    await eventually(lambda: one.shared.figures.stored == 2)
    assert await two.cache.query(TOTAL, 1, tags="orders:1") == rows
    again = await two.cache.cached(tags="orders:{order_id}")(load_order)(2)
    assert (again, type(again), again is order) == (order, Order, False)
    assert two.shared.figures.hits == 2
    assert LOADED == [2]


LOADED: list[int] = []


async def load_order(order_id: int) -> Order:
    LOADED.append(order_id)
    return Order(order_id, 10 * order_id)


async def test_a_row_that_lacks_a_change_is_refused_by_whoever_was_told_of_it(
    start: Start, load: Counted, sql: asyncpg.Connection
) -> None:
    one, two = await start(), await start()
    await share(one, load)
    await sql.execute("update orders set total = 11 where id = 1")
    await heard(two, sql)
    assert await get(two, load) == 11
    assert two.shared.figures.refused == 1
    await eventually(lambda: two.shared.figures.stored)
    await heard(one, sql)
    assert await get(one, load) == 11
    assert load.calls == 2


async def test_a_change_of_the_table_itself_ends_what_was_shared_before_it(
    start: Start, load: Counted, sql: asyncpg.Connection
) -> None:
    """As the tags of a query show it that were found automatically."""
    one, two = await start(), await start()
    await one.cache.query("select total from orders where id = 1")
    await eventually(lambda: one.shared.figures.stored)
    await sql.execute("alter table orders add column note text")
    await heard(two, sql)
    await two.cache.query("select total from orders where id = 1")
    assert (two.shared.figures.hits, two.shared.figures.refused) == (0, 1)
    await eventually(lambda: two.shared.figures.stored)
    await heard(one, sql)
    await one.cache.query("select total from orders where id = 1")
    assert (one.shared.figures.hits, one.shared.figures.refused) == (1, 0)


async def test_a_process_that_has_other_tags_for_a_key_does_not_use_the_row(start: Start, load: Counted) -> None:
    one, two = await start(), await start()
    await share(one, load)
    assert await two.cache.get_or_load("one", load, tags=("orders:1", "other")) == 10
    assert (load.calls, two.shared.figures.refused) == (2, 1)


async def test_a_process_that_begins_is_warm_without_a_load(
    start: Start, load: Counted, sql: asyncpg.Connection
) -> None:
    one = await start()
    await sql.execute("insert into other values (1)")
    await heard(one, sql)
    await share(one, load)
    for _change in range(3):
        await sql.execute("insert into other values (2)")
        await heard(one, sql)
    two = await start()
    assert await get(two, load) == 10
    assert load.calls == 1


async def test_a_row_from_before_what_the_feed_remembers_is_used_once_it_was_said_to_be_true(
    start: Start, load: Counted, sql: asyncpg.Connection
) -> None:
    one = await start()
    await share(one, load)
    await sql.execute("insert into other values (1)")
    await heard(one, sql)
    await sql.execute("truncate pipeline.ring_0, pipeline.ring_1")
    await sql.execute("insert into other values (2)")
    await heard(one, sql)
    two = await start()
    position = one.cache.core.position
    await one.shared.raise_rows()
    assert not await sql.fetchval("select bool_or(snapshot::text = $1) from pipeline.cache_0", str(position))
    await sql.execute("update pipeline.cache_0 set raised_at = raised_at - interval '1 minute'")
    await one.shared.raise_rows()
    assert await get(two, load) == 10
    assert load.calls == 1
    assert two.shared.figures.hits == 1


async def test_a_row_that_is_older_than_the_process_and_was_not_raised_is_refused(
    start: Start, load: Counted, sql: asyncpg.Connection
) -> None:
    one = await start()
    await share(one, load)
    await sql.execute("insert into other values (1)")
    await heard(one, sql)
    await sql.execute("truncate pipeline.ring_0, pipeline.ring_1")
    await sql.execute("insert into other values (2)")
    await heard(one, sql)
    two = await start()
    assert await get(two, load) == 10
    assert (load.calls, two.shared.figures.refused) == (2, 1)


async def test_only_one_of_three_processes_loads_what_all_ask_for_at_once(start: Start, load: Counted) -> None:
    clients = [await start() for _ in range(3)]
    load.pause = 0.1
    assert await asyncio.gather(*(get(client, load) for client in clients)) == [10, 10, 10]
    assert load.calls == 1
    assert sum(client.shared.figures.waited for client in clients) == 2


async def test_a_load_that_fails_or_may_not_be_shared_lets_the_next_process_load(
    start: Start, load: Counted
) -> None:
    one, two = await start(), await start()

    async def fails() -> None:
        await asyncio.sleep(0.05)
        raise LookupError("gone")

    async def opaque() -> object:
        await asyncio.sleep(0.05)
        return object()

    for number, loader in enumerate((fails, opaque)):
        key, began = f"key {number}", time.monotonic()
        first = asyncio.create_task(one.cache.get_or_load(key, loader, tags="orders:1"))
        await asyncio.sleep(0.02)
        assert await get(two, load, key) == 10
        assert time.monotonic() - began < 1.5  # a lease of a load of unknown length is 2 s
        await asyncio.gather(first, return_exceptions=True)
    assert one.shared.figures.unshareable == 1


KILLED = """
import asyncio, sys
import pipeline

async def main():
    async with pipeline.connect(sys.argv[1], shared=True) as client:
        while not (client.cache.healthy().ok and client.cache.core.epoch):
            await asyncio.sleep(0.01)

        async def load():
            print("loading", flush=True)
            await asyncio.sleep(60)

        await client.cache.get_or_load("one", load, tags="orders:1")

asyncio.run(main())
"""


async def test_when_the_process_that_loads_is_killed_another_one_loads_when_its_time_is_over(
    dsn: str, start: Start, load: Counted
) -> None:
    two = await start()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, dsn, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"loading\n"
    process.kill()
    await process.wait()
    began = time.monotonic()
    assert await get(two, load) == 10
    assert 0.5 < time.monotonic() - began < 4
    assert two.shared.figures.waited == 1


async def test_reads_go_on_while_somebody_has_locked_the_table(
    dsn: str, start: Start, load: Counted, sql: asyncpg.Connection
) -> None:
    one, two = await start(), await start()
    await share(one, load)
    locker = await asyncpg.connect(dsn)
    async with locker.transaction():
        await locker.execute("lock table pipeline.cache_0, pipeline.cache_1 in access exclusive mode")
        began = time.monotonic()
        assert await get(two, load) == 10
        assert time.monotonic() - began < 1
        assert two.shared.figures.failures == 1
        assert not two.shared.healthy().ok
        began = time.monotonic()
        for number in range(20):  # nobody waits for the table any more
            await get(two, load, f"key {number}")
        assert time.monotonic() - began < 0.4
    await locker.close()
    await eventually(lambda: two.shared.healthy().ok)


async def test_a_value_without_a_form_for_all_processes_is_counted_and_served(start: Start, sql: Any) -> None:
    one = await start()
    load = Counted(sql, value=object())
    assert await get(one, load) is load.value
    await eventually(lambda: one.shared.figures.unshareable == 1)
    assert await get(one, load) is load.value
    assert (load.calls, one.shared.figures.stored) == (1, 0)


@pytest.mark.parametrize(
    "damage",
    [
        "update pipeline.cache_0 set value = 'garbage'",
        r"update pipeline.cache_0 set value = '\x80049502000000000000004b012e'",
        "update pipeline.cache_0 set epoch = 'another'",
        "update pipeline.cache_0 set expires_at = now() - interval '1 second'",
        "truncate pipeline.cache_0",
    ],
)
async def test_what_somebody_did_to_the_table_costs_a_load_and_no_more(
    start: Start, load: Counted, sql: asyncpg.Connection, damage: str
) -> None:
    one, two = await start(), await start()
    await share(one, load)
    await sql.execute(damage)
    assert await get(two, load) == 10
    assert load.calls == 2
    assert two.shared.figures.foreign == ("value" in damage)


async def test_invalidate_and_clear_end_what_is_shared(
    start: Start, load: Counted, sql: asyncpg.Connection
) -> None:
    one, two = await start(), await start()
    await share(one, load)
    for say in (
        lambda: one.cache.invalidate(tags=["orders:1"]),
        lambda: one.cache.invalidate(prefix="ord"),
        one.cache.clear,
    ):
        await say()
        calls, shared = load.calls, one.shared.figures.stored
        assert await get(one, load) == 10
        assert load.calls == calls + 1, "the process that said so takes no row from before"
        await heard(one, sql)  # its own word comes back, and ends what was loaded without a snapshot
        await get(one, load)
        await eventually(lambda shared=shared: one.shared.figures.stored > shared)
    calls = load.calls
    await sql.execute("select pipeline.invalidate(tags => '{orders:1}')")
    await heard(two, sql)
    assert await get(two, load) == 10
    assert (load.calls, two.shared.figures.refused) == (calls + 1, 1)


async def test_a_value_without_tags_is_not_taken_after_clear(start: Start, load: Counted) -> None:
    one = await start()
    for number in (1, 2):
        assert await one.cache.get_or_load("plain", load, tags=(), ttl="1h") == 10
        await eventually(lambda number=number: one.shared.figures.stored == number)
        before = one.cache.core.fence.generation
        await one.cache.clear()  # takes effect here at once, and again when the feed tells of it
        await eventually(lambda before=before: one.cache.core.fence.generation >= before + 2, why="the feed tells")
    assert load.calls == 2


async def test_nothing_is_shared_unless_it_is_asked_for(start: Start, load: Counted) -> None:
    one, two = await start(shared=False), await start()
    assert await get(one, load) == 10
    assert await get(two, load, shared=False) == 10
    assert load.calls == 2
    assert await get(one, load, "asked for", shared=True) == 10
    await eventually(lambda: one.shared.figures.stored == 1)
    assert await get(two, load, "asked for") == 10
    assert load.calls == 3


async def test_a_function_whose_name_means_another_one_elsewhere_is_shared_only_under_a_namespace(
    start: Start,
) -> None:
    one = await start()

    def made(factor: int, **options: Any) -> Any:
        @one.cache.cached(tags="orders:{n}", **options)
        async def times(n: int) -> int:
            return n * factor

        return times

    assert await made(2)(3) == 6
    assert await made(5)(3) == 15
    assert await made(2, namespace="twice")(3) == 6
    await eventually(lambda: one.shared.figures.stored == 1)
    assert one.shared.figures.misses == 1


async def test_sessions_with_other_settings_share_nothing(start: Start, dsn: str, load: Counted, sql: Any) -> None:
    one = await start()
    await share(one, load)
    name = await sql.fetchval("select current_database()")
    await sql.execute(f"alter database \"{name}\" set search_path = 'elsewhere, public'")
    two = await start()
    assert await get(two, load) == 10
    assert (load.calls, two.shared.figures.misses) == (2, 1)


async def test_a_process_does_not_go_back_behind_what_it_has_handed_out(
    start: Start, load: Counted, sql: asyncpg.Connection
) -> None:
    """Another process shares what was true before a change that neither has been told of."""
    one, two = await start(), await start()
    await sql.execute("select pipeline.unwatch('orders')")  # so that nobody is ever told
    await heard(one, sql)
    await get(two, load)
    await eventually(lambda: two.shared.figures.stored)
    await sql.execute("update orders set total = 11 where id = 1")
    await sql.execute("truncate pipeline.cache_0")
    assert await get(one, load) == 11
    await eventually(lambda: one.shared.figures.stored)
    one.cache.core.store.drop("one", "size")
    entry = two.cache.core.store.entries["one"]
    await sql.execute("update pipeline.cache_0 set version = $1, value = $2", entry.shared, b"\x01\x0a")
    assert await get(one, load) == 11
    assert (load.calls, one.shared.figures.refused) == (3, 1)


async def test_after_its_own_commit_a_process_takes_no_row_from_before(start: Start, load: Counted) -> None:
    first, second = await start(), await start()
    assert await share(first, load) == 10
    second.cache.on_batch = lambda batch: None  # type: ignore[method-assign]  # the feed has not told it yet
    second.cache.on_position = lambda position: None  # type: ignore[method-assign]
    async with second.transaction() as conn:
        await conn.execute("update orders set total = 11 where id = 1")
    assert await get(second, load) == 11
