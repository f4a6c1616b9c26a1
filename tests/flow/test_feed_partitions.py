"""Partitioned tables and their parts are one table to those who listen."""

from __future__ import annotations

import pytest

from tests.flow.feed_kit import Feed, said

SALES = """
create table sale (id int, year int, primary key (id, year)) partition by list (year);
create table sale_2023 partition of sale for values in (2023);
create table sale_2024 partition of sale for values in (2024) partition by range (id);
create table sale_2024_low partition of sale_2024 for values from (0) to (100)
"""


@pytest.fixture
async def sales(feed: Feed) -> Feed:
    await feed.watch(SALES, "'sale', keys => '{id}', timing => true")
    return feed


@pytest.mark.parametrize("table", ["sale", "sale_2024", "sale_2024_low"])
async def test_a_statement_on_any_level_is_one_event_of_the_watched_table(sales: Feed, table: str) -> None:
    events = await sales.told(
        f"insert into {table} values (1, 2024), (2, 2024)",
        f"update {table} set id = 3 where id = 1",
        f"delete from {table}",
        f"truncate {table}",
    )
    assert {event.name for event in events} == {"sale"}
    deeper = {"sale": 4, "sale_2024": 2, "sale_2024_low": 1}[table]  # truncating a parent truncates its parts
    assert said(events[:3]) == [("i", ["1", "2"], 2), ("u", ["1", "3"], 1), ("d", ["2", "3"], 2)]
    assert said(events[3:]) == [("t", None, 0)] * deeper


async def test_a_row_that_moves_between_partitions_is_one_update(sales: Feed) -> None:
    await sales.told("insert into sale values (1, 2023)")
    assert said(await sales.told("update sale set year = 2024")) == [("u", ["1"], 1)]


async def test_copy_into_the_parent_is_one_event(sales: Feed) -> None:
    await sales.sql.copy_records_to_table("sale", records=[(1, 2023), (2, 2024)])
    assert said(await sales.told()) == [("i", ["1", "2"], 2)]


async def test_a_partition_created_later_reports(sales: Feed) -> None:
    assert {event.op for event in await sales.told("create table s25 partition of sale for values in (2025)")} == {
        "w"
    }
    assert said(await sales.told("insert into s25 values (5, 2025)")) == [("i", ["5"], 1)]


async def test_a_partition_attached_with_rows_changes_the_whole_table_and_reports(sales: Feed) -> None:
    await sales.run(
        "create table s25 (id int not null, year int not null, primary key (id, year))",
        "insert into s25 values (5, 2025)",
    )
    events = await sales.told("alter table sale attach partition s25 for values in (2025)")
    assert set(said(events)) == {("w", None, 0)}
    assert said(await sales.told("insert into s25 values (6, 2025)")) == [("i", ["6"], 1)]


async def test_a_partition_detached_changes_the_whole_table_and_reports_no_more(sales: Feed) -> None:
    await sales.told("insert into sale values (1, 2023)")
    events = await sales.told("alter table sale detach partition sale_2023")
    assert set(said(events)) == {("w", None, 0)}
    assert await sales.told("insert into sale_2023 values (2, 2023)") == []
    assert await sales.sql.fetchval("select count(*) from pg_trigger where tgrelid = 'sale_2023'::regclass") == 0


async def test_a_partition_dropped_changes_the_whole_table(sales: Feed) -> None:
    assert {(e.name, e.op) for e in await sales.told("drop table sale_2023")} == {("sale", "w")}


async def test_a_watched_partition_reports_both_for_itself_and_for_its_parent(sales: Feed) -> None:
    await sales.told("select pipeline.watch('sale_2023')")
    events = await sales.told("insert into sale_2023 values (1, 2023)")
    assert sorted((event.name, event.keys) for event in events) == [
        ("sale", ("1",)), ("sale_2023", ("1,2023",))
    ]  # fmt: skip


async def test_children_by_plain_inheritance_report_for_their_parent(feed: Feed) -> None:
    await feed.watch(
        "create table city (id int primary key); create table capital (land text) inherits (city)", "'city'"
    )
    events = await feed.told(
        "insert into capital values (1, 'A')", "update city set id = 2", "update capital set id = 3",
        "delete from only city", "delete from city", "truncate city",
    )  # fmt: skip
    assert said(events) == [
        ("i", ["1"], 1), ("u", ["1", "2"], 1), ("u", ["2", "3"], 1), ("d", ["3"], 1),
        ("t", None, 0), ("t", None, 0),
    ]  # fmt: skip


async def test_partitions_can_report_what_replication_applies(feed: Feed) -> None:
    await feed.watch(SALES, "'sale', keys => '{id}', replicated => true")
    events = await feed.told("insert into sale values (1, 2023)", "insert into sale values (2, 2024)")
    assert said(events) == [("i", ["1"], 1), ("i", ["2"], 1)]
    await feed.told("create table sale_2024_high partition of sale_2024 for values from (100) to (200)")
    modes = await feed.sql.fetch(
        "select tgrelid::regclass::text as part, tgenabled from pg_trigger"
        " where tgname like '%replicated' order by 1"
    )
    assert [(row["part"], row["tgenabled"]) for row in modes] == [
        ("sale_2023", b"R"), ("sale_2024_high", b"R"), ("sale_2024_low", b"R")
    ]  # fmt: skip
    assert await feed.sql.fetch("select * from pipeline.watched() where problem is not null") == []
    await feed.told("select pipeline.watch('sale')", "select pipeline.unwatch('sale')")
    assert await feed.sql.fetchval("select count(*) from pg_trigger where tgname like 'pgreflex%'") == 0


async def test_a_key_in_another_place_of_an_attached_partition_is_found(sales: Feed) -> None:
    await sales.run(
        "create table s25 (extra int, year int not null, id int not null)", "alter table s25 drop extra"
    )
    await sales.told("alter table sale attach partition s25 for values in (2025)")
    assert said(await sales.told("insert into s25 values (2025, 7)")) == [("i", ["7"], 1)]
