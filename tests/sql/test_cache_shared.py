"""The functions of the shared values: a role sees its own rows only, bytes stay bounded, leases end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from pipeline.core.cache_shared import SharedRow
from pipeline.core.snapshot import Snapshot
from pipeline.db.cache_shared import NewRow, SharedTable
from pipeline.db.connection import Database

KEY = b"k" * 16
AT = Snapshot(100, 100)


def row(key: bytes = KEY, version: int = 1, value: bytes = b"v", **fields: Any) -> NewRow:
    known = {"namespace": "n", "tags": ("orders:1", 'a"b\\'), "snapshot": AT, "ttl": None, "load_ms": 1.5}
    return NewRow(key, version, value=value, **{**known, **fields})


@pytest.fixture
async def epoch(sql: asyncpg.Connection) -> str:
    await sql.execute("select pipeline.take_over()")
    return str(await sql.fetchval("select pipeline.epoch()"))


@pytest.fixture
def table(db: Database) -> SharedTable:
    return SharedTable(db)


@pytest.fixture
async def roles(sql: asyncpg.Connection, dsn: str) -> AsyncIterator[tuple[str, str]]:
    """Two roles with usage of the schema."""
    names = tuple(f"share_{letter}_{dsn.rpartition('t_')[2][:12]}" for letter in "ab")
    for name in names:
        await sql.execute(f"create role {name}; grant usage on schema pipeline to {name}")
    yield names[0], names[1]
    await sql.execute("reset role")
    for name in names:
        await sql.execute(f"drop owned by {name}; drop role {name}")


async def found(table: SharedTable, epoch: str, key: bytes = KEY, owner: int = 1, **rest: Any) -> Any:
    return await table.get(key, epoch, rest.pop("refused", None), owner, rest.pop("lease", 5.0), timeout=5)


async def test_a_row_comes_back_as_it_was_put(table: SharedTable, epoch: str) -> None:
    assert (await found(table, epoch)).wait is None
    upper = await table.put(epoch, 1, [row(ttl=60.0)])
    answer = (await found(table, epoch)).row
    assert answer == SharedRow(b"v", frozenset(("orders:1", 'a"b\\')), AT, 1, answer.upper, answer.left, 1.5)
    assert answer.upper == upper
    assert 59 < answer.left <= 60


async def test_a_row_of_another_epoch_or_past_its_time_or_refused_is_none(table: SharedTable, epoch: str) -> None:
    await table.put("another", 1, [row(b"a" * 16)])
    await table.put(epoch, 1, [row(b"b" * 16, ttl=-1.0), row()])
    assert (await found(table, epoch, b"a" * 16)).row is None
    assert (await found(table, epoch, b"b" * 16)).row is None
    assert (await found(table, "another")).row is None
    answer = (await found(table, epoch)).row
    assert (await found(table, epoch, refused=answer)).row is None
    await table.put(epoch, 1, [row(version=2)])
    assert (await found(table, epoch, refused=answer)).row.version == 2


async def test_a_row_is_replaced_by_a_newer_one_only(table: SharedTable, epoch: str) -> None:
    await table.put(epoch, 1, [row(version=1)])
    await table.put(epoch, 1, [row(version=2, snapshot=Snapshot(90, 90))])
    assert (await found(table, epoch)).row.version == 1
    await table.put(epoch, 1, [row(version=3, snapshot=Snapshot(101, 101))])
    assert (await found(table, epoch)).row.version == 3


async def test_of_several_that_miss_a_row_one_loads_and_the_others_wait(table: SharedTable, epoch: str) -> None:
    assert (await found(table, epoch, owner=1)).wait is None
    wait = (await found(table, epoch, owner=2)).wait
    assert 4 < wait <= 5
    assert (await found(table, epoch, owner=1)).wait is None, "the same process may ask again"
    await table.release(2, [KEY])
    assert (await found(table, epoch, owner=2)).wait is not None, "nobody ends a lease of another"
    await table.release(1, [KEY])
    assert (await found(table, epoch, owner=2)).wait is None
    await table.put(epoch, 2, [row()])
    assert (await found(table, epoch, owner=3)).row is not None


async def test_a_lease_ends_by_itself(table: SharedTable, epoch: str) -> None:
    await found(table, epoch, owner=1, lease=0.0)
    assert (await found(table, epoch, owner=2)).wait is None


async def test_no_role_reads_or_replaces_what_another_has_shared(
    sql: asyncpg.Connection, epoch: str, roles: tuple[str, str]
) -> None:
    get = "select value from pipeline.cache_get($1, $2, null, null, 1, 0)"
    values = "'{1}', '{n}', array[$3::bytea], '{[]}', '{9:9:}', '{9}', '{1}'"
    put = f"select pipeline.cache_put($1, 1, array[$2::bytea], {values})"
    for name in roles:
        await sql.execute(f"set role {name}")
        assert await sql.fetchval(get, KEY, epoch) is None
        assert await sql.fetchval(put, epoch, KEY, name.encode())
    for name in roles:
        await sql.execute(f"set role {name}")
        assert await sql.fetchval(get, KEY, epoch) == name.encode()
        for statement in ("select from pipeline.cache_0", "select from pipeline.cache_lease"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await sql.execute(statement)
    await sql.execute("reset role")
    assert await sql.fetchval(get, KEY, epoch) is None


async def test_a_role_can_be_kept_from_sharing(
    sql: asyncpg.Connection, epoch: str, roles: tuple[str, str]
) -> None:
    get = "pipeline.cache_get(bytea,text,bigint,text,bigint,float8)"
    await sql.execute(
        f"revoke execute on function {get} from public; grant execute on function {get} to {roles[0]}"
    )
    calls = [
        "select from pipeline.cache_get('k', 'e', null, null, 1, 1)",
        "select pipeline.cache_put('e', 1, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')",
        "select pipeline.cache_raise('e', '{}', '{}', '1:1:')",
        "select pipeline.cache_release(1, '{}')",
        "select pipeline.cache_turn()",
    ]
    for call in calls:
        await sql.execute(f"set role {roles[0]}")
        await sql.execute(call)
        await sql.execute(f"set role {roles[1]}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await sql.execute(call)


async def test_the_table_stays_within_its_bound_and_keeps_the_newest(
    table: SharedTable, epoch: str, sql: asyncpg.Connection
) -> None:
    bound = 2_000_000
    await sql.execute("update pipeline.setting set value = $1 where name = 'cache_shared_max_bytes'", str(bound))
    size = "select pg_total_relation_size('pipeline.cache_0') + pg_total_relation_size('pipeline.cache_1')"
    largest, turns = 0, 0
    for number in range(120):
        rows = [row(b"%016d" % (10 * number + n), value=bytes(5_000)) for n in range(10)]
        while not await table.put(epoch, 1, rows):
            assert await table.turn()
            turns += 1
        largest = max(largest, await sql.fetchval(size))
    assert turns >= 3
    assert largest < bound + 200_000
    assert (await found(table, epoch, b"%016d" % 1_199)).row is not None
    assert (await found(table, epoch, b"%016d" % 0)).row is None


async def test_without_room_nothing_is_written_and_nobody_waits(
    table: SharedTable, epoch: str, sql: asyncpg.Connection
) -> None:
    await sql.execute("update pipeline.setting set value = '0' where name = 'cache_shared_max_bytes'")
    assert not await table.put(epoch, 1, [row()])
    assert not await table.turn()
    assert (await found(table, epoch)).row is None


async def test_a_row_that_is_raised_moves_to_the_newer_half_with_its_value(
    table: SharedTable, epoch: str, sql: asyncpg.Connection
) -> None:
    await table.put(epoch, 1, [row(value=bytes(3_000)), row(b"x" * 16, version=7)])
    await sql.execute("select setval('pipeline.cache_half', 1)")
    later = Snapshot(200, 200)
    assert await table.raise_to(epoch, later, [(KEY, 1), (b"x" * 16, 8)])
    assert await sql.fetchval("select count(*) from pipeline.cache_1") == 1
    answer = (await found(table, epoch)).row
    assert (answer.snapshot, answer.value, answer.version) == (later, bytes(3_000), 1)
    assert (await found(table, epoch, b"x" * 16)).row.snapshot == AT, "that is another value"


async def test_a_row_in_the_newer_half_is_raised_at_most_every_five_seconds(
    table: SharedTable, epoch: str, sql: asyncpg.Connection
) -> None:
    await table.put(epoch, 1, [row()])
    await table.raise_to(epoch, Snapshot(200, 200), [(KEY, 1)])
    assert (await found(table, epoch)).row.snapshot == AT
    await sql.execute("update pipeline.cache_0 set raised_at = raised_at - interval '6 seconds'")
    await table.raise_to("another", Snapshot(200, 200), [(KEY, 1)])
    assert (await found(table, epoch)).row.snapshot == AT
    await table.raise_to(epoch, Snapshot(200, 200), [(KEY, 1)])
    assert (await found(table, epoch)).row.snapshot == Snapshot(200, 200)


async def test_a_crash_of_the_server_empties_the_tables(sql: asyncpg.Connection) -> None:
    rows = await sql.fetch(
        "select relname from pg_class where relname ~ '^cache_(0|1|lease)$' and relpersistence = 'u'"
    )
    assert len(rows) == 3
