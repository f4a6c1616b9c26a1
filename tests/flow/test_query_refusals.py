"""Queries whose tags cannot be proved: each is refused with the reason, and with what to do."""

from __future__ import annotations

import re

import asyncpg
import pytest

from pipeline.db.connection import Database
from pipeline.db.query_tags import QueryAnalyst
from pipeline.errors import NotCacheable, PgreflexError, QueryFailed
from tests.flow.test_query_tags import analyst_fixture, shop_fixture  # noqa: F401

ODDS = """
    create table loose (id int);
    create table secret (id int primary key);
    alter table secret enable row level security;
    create table narrow (id int primary key, a int, b int);
    create table broken (id int primary key);
    create table parent (id int);
    create table child (x int) inherits (parent);
    create materialized view stored as select 1 as n;
    create sequence numbers;
    create view over_loose as select id from loose;
    create view clocked as select id, now() as seen from orders;
    create function reads() returns bigint language plpgsql stable as 'begin return (select count(*) from
    orders); end'; create function pure_one(int) returns int language plpgsql immutable as 'begin return $1;
    end'; create function writes() returns int language sql as 'insert into loose values (1) returning id';
    create function peeks() returns bigint language sql stable as 'select count(*) from loose'; create function
    clock(a timestamptz default now()) returns int language sql stable as 'select 1'; create function
    wide(anyelement) returns anyelement language sql stable as 'select $1'; create function owned() returns
    bigint language sql stable security definer as 'select count(*) from orders'; create function day() returns
    date language sql stable as $$select 'today'::date$$; create function shaky(int, int) returns int language
    sql volatile as 'select 1'; create operator @#@ (leftarg = int, rightarg = int, function = shaky); create
    aggregate shaken(int) (sfunc = shaky, stype = int);
"""
REFUSED = [
    ("select now()", "clock", "Pass the time"),
    ("select * from orders where at > current_timestamp", "clock", "argument"),
    ("select * from orders where at > localtime + current_date", "clock", "argument"),
    ("select age(at) from orders", "clock", "argument"),
    ("select * from orders where at < 'today'", "clock, by a constant", "argument"),
    ("select * from orders where at < e'\\156ow'", "clock, by a constant", "argument"),
    ("select note::date from orders", "clock, by a conversion of text to date", "argument"),
    ("select note::tstzrange from orders", "clock, by a conversion", "argument"),
    ("select array[note]::text[]::date[] from orders", "clock, by a conversion", "argument"),
    ("select clock()", r"clock, by now.*\(in the function clock\)", "argument"),
    ("select day()", r"clock, by a constant .*\(in the function day\)", "argument"),
    ("select id from clocked", r"clock, by now.*\(in the view clocked\)", "argument"),
    ("select random()", r"calls random\(\), which is volatile", "alter function"),
    ("select nextval('numbers')", "which is volatile", "alter function"),
    ("select writes()", r"calls writes\(\), which is volatile", "stable"),
    ("select id @#@ 1 from orders", "calls shaky.*volatile", "stable"),
    ("select shaken(id) from orders", "calls shaky.*volatile", "stable"),
    ("select reads()", "stable and written in plpgsql", "Write it in SQL"),
    ("select wide(1)", "polymorphic", "tags="),
    ("select owned()", "rights of its owner", "search_path"),
    ("select current_setting('a.b', true)", "current_setting.*stable, and depends on more", "tags="),
    ("select pg_current_snapshot()", "depends on more than its arguments", "tags="),
    ("select * from pg_class", "reads the system catalog pg_class", "tags="),
    ("select * from information_schema.tables", "reads the system catalog", "tags="),
    ("select * from pg_stat_activity", "system catalog|depends on more|volatile", "tags="),
    ("select * from pipeline.setting", "belongs to pgreflex itself", "without"),
    ("select last_value from numbers", "a sequence", "table"),
    ("select * from stored", "a materialized view", "Query its tables"),
    ("select * from secret", "row security is enabled on secret", "tags="),
    ("select * from loose", "reads loose, which is not watched", r"pipeline.watch\('loose'\)"),
    ("select * from over_loose", "reads loose, which is not watched", "pipeline.watch"),
    ("select peeks()", "reads loose, which is not watched", "pipeline.watch"),
    ("select 1 where exists (with a as (select from loose) select from a)", "loose", "pipeline.watch"),
    ("select * from child", r"reads child, which is not watched \(a statement on parent", r"watch\('parent'\)"),
    ("select b from narrow", "does not report changes of what it reads: b", "columns of the watch"),
    ("select narrow from narrow where id = 1", "the whole row", "columns of the watch"),
    ("select * from broken", "may not report everything: triggers are disabled", "check"),
    ("select ctid from orders", "system column", "tableoid"),
    ("select * from orders for update", "locks rows", "transaction of your own"),
    ("select * from (select id from orders for share) o", "locks rows", "transaction of your own"),
    ("insert into orders (id) values (1) returning id", "writes", "read"),
    ("with d as (delete from orders returning id) select * from d", "writes", "read"),
    ("select * from orders tablesample system (10)", "another sample", "REPEATABLE"),
    ("select * from json_to_record('{}') as x(a int)", "json_to_record.*depends on more", "tags="),
    ("show timezone", "no query that only reads: SHOW", "tags="),
    ("explain select 1", "no query that only reads: EXPLAIN", "tags="),
    ("select * into copy from orders", "no query that only reads", "tags="),
]
ALLOWED = ["select pure_one(id) from orders", "select a from narrow where id = 1", "select count(*) from narrow"]


@pytest.fixture(name="odds")
async def odds_fixture(shop: asyncpg.Connection) -> asyncpg.Connection:
    await shop.execute(ODDS)
    await shop.execute("select pipeline.watch('secret'), pipeline.watch('narrow', columns => '{a}')")
    await shop.execute("select pipeline.watch('broken'), pipeline.watch('child')")
    await shop.execute("select set_config('pipeline.own_ddl', 'on', false)")  # nobody mends this one
    await shop.execute("alter table broken disable trigger user")
    await shop.execute("reset pipeline.own_ddl")
    return shop


async def refusal(analyst: QueryAnalyst, query: str) -> PgreflexError:
    with pytest.raises(PgreflexError) as caught:
        await analyst.tags(query, ())
    return caught.value


async def test_each_refusal_says_why_and_what_to_do(analyst: QueryAnalyst, odds: asyncpg.Connection) -> None:
    wrong = []
    for query, reason, advice in REFUSED:
        try:
            found = await analyst.tags(query, ())
        except NotCacheable as error:
            if not re.search(reason, error.message) or not re.search(advice, error.hint):
                wrong.append((query, error.message, error.hint))
        else:
            wrong.append((query, "not refused", sorted(found.tags)))
    assert wrong == []


async def test_what_only_looks_like_a_refusal_is_none(analyst: QueryAnalyst, odds: asyncpg.Connection) -> None:
    for query in ALLOWED:
        assert (await analyst.tags(query, ())).tags


async def test_temporary_tables_are_refused(analyst: QueryAnalyst) -> None:
    async with analyst._db.acquire() as connection:
        await connection.execute("create temp table mine (id int)")
    assert "temporary table mine" in (await refusal(analyst, "select * from mine")).message


async def test_what_postgres_cannot_parse_is_a_failed_query(analyst: QueryAnalyst) -> None:
    for query in ("selec 1", "select 1; select 2", "select * from nowhere", "select 1 /*"):
        assert isinstance(await refusal(analyst, query), QueryFailed)


async def test_without_the_right_to_make_temporary_objects_the_grant_is_named(
    shop: asyncpg.Connection, dsn: str
) -> None:
    name = await shop.fetchval("select current_database()")
    await shop.execute(f'revoke temporary on database "{name}" from public')
    await shop.execute("grant usage on schema pipeline to pg_monitor")
    async with Database(dsn, purpose="test", settings={"role": "pg_monitor"}) as db:
        error = await refusal(QueryAnalyst(db), "select 1")
    assert isinstance(error, NotCacheable)
    assert "temporary" in error.message
    assert "grant temporary" in error.hint


async def test_the_text_of_a_function_cannot_go_on_with_statements_of_its_own(
    analyst: QueryAnalyst, shop: asyncpg.Connection
) -> None:
    await shop.execute("create table victim (id int)")
    await shop.execute("set check_function_bodies = off")
    await shop.execute("""
        create function sly() returns int language sql stable security definer set search_path = public as $$
        select 1; end; commit; drop table victim;
        create or replace function pg_temp.sly() returns void language sql begin atomic select 258; select 1 $$
    """)
    assert "multiple commands" in (await refusal(analyst, "select sly()")).message
    assert await shop.fetchval("select to_regclass('victim') is not null")
