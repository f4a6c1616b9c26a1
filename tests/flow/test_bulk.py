"""Many rows at once: the refused one is reported by itself, and the caller says what becomes of the others."""

from __future__ import annotations

import datetime
from typing import Any

import asyncpg
import pytest

from pipeline.db.bulk import Bulk
from pipeline.db.connection import Database
from pipeline.errors import DatabaseUnavailable, PermissionMissing, QueryFailed, RowsRefused, UsageError


@pytest.fixture
async def bulk(db: Database, sql: asyncpg.Connection) -> Bulk:
    await sql.execute("create schema shop")
    await sql.execute("create table shop.\"Or,ders\" (id int primary key, total numeric check (total >= 0),"
                      " placed date, \"no\"\"te\" text, labels text[])")  # fmt: skip
    return Bulk(db)


TABLE = 'shop."Or,ders"'


def order(id_: Any, total: Any = 1, **more: Any) -> dict[str, Any]:
    return {"id": id_, "total": total, **more}


async def ids(sql: asyncpg.Connection) -> list[int]:
    return [row[0] for row in await sql.fetch(f"select id from {TABLE} order by id")]


async def test_rows_of_every_kind_of_value_arrive_as_they_were_given(bulk: Bulk, sql: asyncpg.Connection) -> None:
    row = order(1, None, placed=datetime.date(2026, 2, 28), **{'no"te': "it's"}, labels=["a", None])
    result = await bulk.insert(TABLE, [row])
    assert result.written == 1
    assert result.failures == ()
    assert dict(await sql.fetchrow(f"select * from {TABLE}") or {}) == row


async def test_more_rows_than_a_batch_holds_are_written_in_one_transaction(
    bulk: Bulk, sql: asyncpg.Connection
) -> None:
    assert (await bulk.insert(TABLE, (order(number) for number in range(12_000)))).written == 12_000
    await sql.execute(f"truncate {TABLE}")
    with pytest.raises(RowsRefused):
        await bulk.insert(TABLE, (order(min(number, 11_998)) for number in range(12_000)))
    assert await ids(sql) == []


async def test_no_rows_are_no_mistake(bulk: Bulk) -> None:
    assert (await bulk.insert(TABLE, [])).written == 0


@pytest.mark.parametrize(
    ("bad", "said", "code"),
    [
        (order(4_998), "duplicate key", "23505"),
        (order(9_001, -1), "check constraint", "23514"),
        (order("seven"), "'str' object cannot be interpreted as an integer", "22000"),
        (order(10**12), "value out of int32 range", "22000"),
    ],
)
@pytest.mark.parametrize("returning", [(), ("id",)])
async def test_one_bad_row_is_named_and_the_others_are_written_where_they_are_to_be_kept(
    bulk: Bulk, sql: asyncpg.Connection, bad: dict[str, Any], said: str, code: str, returning: tuple[str, ...]
) -> None:
    rows = [order(number) for number in range(6_000)]
    rows[5_500] = bad
    result = await bulk.insert(TABLE, rows, keep_others=True, returning=returning)
    assert result.written == 5_999
    assert [failure.index for failure in result.failures] == [5_500]
    assert said in result.failures[0].reason
    assert result.failures[0].code == code
    assert await ids(sql) == [number for number in range(6_000) if number != 5_500]


async def test_without_keeping_the_others_nothing_is_written_and_the_error_names_every_bad_row(
    bulk: Bulk, sql: asyncpg.Connection
) -> None:
    rows = [order(1), order(2, -1), order(3), order(1)]
    with pytest.raises(RowsRefused, match=r"^2 rows were refused and nothing was written; row 1: ") as caught:
        await bulk.insert(TABLE, rows)
    assert [failure.index for failure in caught.value.failures] == [1, 3]
    assert await ids(sql) == []


async def test_when_every_row_is_bad_the_search_ends_early_unless_the_others_are_kept(bulk: Bulk) -> None:
    rows = [order(number, -1) for number in range(300)]
    with pytest.raises(RowsRefused) as caught:
        await bulk.insert(TABLE, rows)
    assert len(caught.value.failures) == 100
    assert len((await bulk.insert(TABLE, rows, keep_others=True)).failures) == 300


async def test_generated_values_come_back_in_the_order_of_the_rows(bulk: Bulk, sql: asyncpg.Connection) -> None:
    await sql.execute("create table shop.item (id int generated always as identity, name text)")
    result = await bulk.insert("shop.item", [{"name": name} for name in "cab"], returning=["id", "name"])
    assert [row["name"] for row in result.returned] == ["c", "a", "b"]
    assert [row["id"] for row in result.returned] == [1, 2, 3]


async def test_a_trigger_that_leaves_out_a_row_is_not_counted_as_written(
    bulk: Bulk, sql: asyncpg.Connection
) -> None:
    await sql.execute("create function shop.skip() returns trigger language plpgsql as"
                      " $$begin return case when new.id = 2 then null else new end; end$$")  # fmt: skip
    await sql.execute(f"create trigger skip before insert on {TABLE} for each row execute function shop.skip()")
    assert (await bulk.insert(TABLE, [order(1), order(2)])).written == 1


async def test_a_table_with_row_security_and_a_view_are_written_without_copy(
    bulk: Bulk, sql: asyncpg.Connection
) -> None:
    await sql.execute(f"alter table {TABLE} enable row level security")
    await sql.execute(f"create view shop.totals as select id, total from {TABLE}")
    assert (await bulk.insert(TABLE, [order(1)])).written == 1
    assert (await bulk.insert("shop.totals", [order(2)])).written == 1


async def test_an_update_changes_the_named_columns_of_the_named_rows(bulk: Bulk, sql: asyncpg.Connection) -> None:
    await bulk.insert(TABLE, [order(number, number, placed=None) for number in range(1, 4)])
    day = datetime.date(2026, 1, 2)
    result = await bulk.update(TABLE, [{"placed": day, "id": 3}, {"placed": None, "id": 1}])
    assert result.written == 2
    rows = await sql.fetch(f"select id, total, placed from {TABLE} order by id")
    assert [tuple(row) for row in rows] == [(1, 1, None), (2, 2, None), (3, 3, day)]


async def test_a_row_that_is_not_there_and_a_second_one_of_the_same_key_are_refused_by_themselves(
    bulk: Bulk, sql: asyncpg.Connection
) -> None:
    await bulk.insert(TABLE, [order(1), order(2)])
    result = await bulk.update(TABLE, [order(1, 10), order(7, 70), order(2, -5), order(1, 11)], keep_others=True)
    assert result.written == 1
    assert [(failure.index, failure.reason) for failure in result.failures if failure.index != 2] == [
        (1, "the table has no row with this key"),
        (3, "it has the key of row 0"),
    ]
    assert result.failures[1].code == "23514"
    assert await sql.fetchval(f"select total from {TABLE} where id = 1") == 10


async def test_an_update_of_an_array_sets_the_array(bulk: Bulk, sql: asyncpg.Connection) -> None:
    await bulk.insert(TABLE, [order(1), order(2)])
    rows = [{"id": 1, "labels": ["a", "b"]}, {"id": 9, "labels": []}, {"id": 2, "labels": []}]
    result = await bulk.update(TABLE, rows, keep_others=True)
    assert (result.written, [failure.index for failure in result.failures]) == (2, [1])
    assert [row[0] for row in await sql.fetch(f"select labels from {TABLE} order by id")] == [["a", "b"], []]


async def test_a_key_may_be_of_several_columns(bulk: Bulk, sql: asyncpg.Connection) -> None:
    await sql.execute("create table shop.stock (place text, sku int, count int, primary key (place, sku))")
    await bulk.insert("shop.stock", [{"place": place, "sku": 1, "count": 0} for place in "ab"])
    await bulk.update("shop.stock", [{"count": 5, "sku": 1, "place": "b"}], key=["place", "sku"])
    assert await sql.fetchval("select array_agg(count order by place) from shop.stock") == [0, 5]


async def test_in_the_callers_transaction_nothing_stays_when_the_caller_rolls_back(
    bulk: Bulk, db: Database, sql: asyncpg.Connection
) -> None:
    async with db.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        await bulk.insert(TABLE, [order(1), order(1)], keep_others=True, conn=conn)
        await transaction.rollback()
    async with db.transaction() as conn:
        with pytest.raises(RowsRefused):
            await bulk.insert(TABLE, [order(1), order(1)], conn=conn)
        await bulk.insert(TABLE, [order(2)], conn=conn)
    assert await ids(sql) == [2]


@pytest.mark.parametrize(
    ("table", "rows", "said"),
    [
        ("shop.nowhere", [order(1)], "there is no table shop.nowhere"),
        (TABLE, [{"id": 1, "price": 2}], "has no column price"),
        (TABLE, [order(1), {"id": 2}], "row 1 does not name the columns of row 0"),
        (TABLE, [order(1), {"id": 2, "price": 2}], "row 1 does not name the columns of row 0"),
        (TABLE, [{}], "row 0 names no columns"),
    ],
)
async def test_a_call_that_cannot_be_meant_is_refused_as_a_whole(
    bulk: Bulk, sql: asyncpg.Connection, table: str, rows: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        await bulk.insert(table, rows, keep_others=True)
    assert await ids(sql) == []


async def test_an_update_needs_its_key_and_something_to_change(bulk: Bulk) -> None:
    with pytest.raises(UsageError, match="the rows have no id"):
        await bulk.update(TABLE, [{"total": 1}])
    with pytest.raises(UsageError, match="nothing but their key"):
        await bulk.update(TABLE, [{"id": 1}])


async def test_what_no_row_is_to_blame_for_ends_the_whole_call(bulk: Bulk, sql: asyncpg.Connection) -> None:
    await sql.execute("create role nobody_here")
    try:
        await sql.execute("grant usage on schema shop to nobody_here")
        await sql.execute("set role nobody_here")
        with pytest.raises(PermissionMissing):
            await bulk.insert(TABLE, [order(1), order(2)], keep_others=True, conn=sql)
    finally:
        await sql.execute("reset role")
        await sql.execute("drop owned by nobody_here")
        await sql.execute("drop role nobody_here")


async def test_a_connection_that_is_lost_in_the_middle_is_no_refusal(
    bulk: Bulk, db: Database, sql: asyncpg.Connection
) -> None:
    async def write_on_a_lost_connection() -> None:
        async with db.transaction() as conn:
            pid = await conn.fetchval("select pg_backend_pid()")
            await sql.execute("select pg_terminate_backend($1)", pid)
            await bulk.insert(TABLE, [order(1), order(2)], keep_others=True, conn=conn)

    with pytest.raises((DatabaseUnavailable, QueryFailed)):
        await write_on_a_lost_connection()
    assert await ids(sql) == []


async def test_a_text_that_is_too_long_is_refused_and_never_cut(bulk: Bulk, sql: asyncpg.Connection) -> None:
    await sql.execute("create table code (id int primary key, name varchar(3), letters char(2), bits bit(2))")
    await bulk.insert("code", [{"id": 1, "name": "abc", "letters": "xy"}], returning=["id"])
    with pytest.raises(RowsRefused, match="too long"):
        await bulk.insert("code", [{"id": 2, "name": "abcd"}], returning=["id"])
    for column, value in (("name", "abcd"), ("letters", "xyz")):
        with pytest.raises(RowsRefused, match="too long"):
            await bulk.update("code", [{"id": 1, column: value}])
    assert tuple(await sql.fetchrow("select name, letters from code") or ()) == ("abc", "xy")
