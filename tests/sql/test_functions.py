"""The functions of the schema compile, are closed to strangers, and open to applications where they are meant."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import asyncpg
import pytest

# What an application may call once it has usage of the schema; the triggers of enqueue_on call enqueue_rows.
FOR_APPLICATIONS = {
    "alert_off",
    "alert_on",
    "alert_row",
    "alerts",
    "cache_get",
    "cache_put",
    "cache_raise",
    "cache_release",
    "cache_turn",
    "claim_plan",
    "emit",
    "enqueue",
    "enqueue_many",
    "enqueue_on",
    "enqueue_rows",
    "invalidate",
    "latency",
    "latency_histogram",
    "percentile",
    "query_texts",
    "plan_changes",
    "raise_alert",
    "query_plans",
    "rate_limit",
    "record_timing",
    "record_timings",
    "refuse_plan",
    "remember_queries",
    "resolve_alert",
    "save_plan",
    "slo_status",
    "start_workflow",
    "statements",
    "waits",
    "timing_ids",
    "write_timings",
    "slow_queries",
    "timing_history",
    "timing_series_list",
    "timing_totals",
    "top_series",
}
# Harmless, because they run with the caller's rights: `watched` answers only those who may read pipeline.watch.
# Tells a transaction of itself.
FOR_WRITERS = {"own_changes"}
OPEN_PARTS = {"alert_metrics", "fake_now", "now", "query_problem", "series_name", "watch_problem", "watched"}
# What an application needs to follow the feed; all of it is broadcast to every session that listens anyway.
FOR_FOLLOWERS = {"changes_since", "contained", "epoch", "lineage", "watched_over"}
READABLE = {"leader", "ring"}
OPEN = FOR_APPLICATIONS | OPEN_PARTS | FOR_FOLLOWERS | FOR_WRITERS
RUN_AS_OWNER = {
    "alert_row",
    "alerts",
    "cache_get",
    "cache_put",
    "cache_raise",
    "cache_release",
    "cache_turn",
    "claim_plan",
    "changes_since",
    "contained",
    "emit",
    "enqueue",
    "enqueue_many",
    "enqueue_rows",
    "follow_ddl",
    "latency",
    "latency_histogram",
    "maintain_archive",
    "own_changes",
    "percentile",
    "query_texts",
    "plan_changes",
    "raise_alert",
    "query_plans",
    "rate_limit",
    "record_timing",
    "record_timings",
    "refuse_plan",
    "remember_queries",
    "resolve_alert",
    "slow_queries",
    "slo_status",
    "start_alert_rule",
    "save_plan",
    "start_workflow",
    "statements",
    "tell_ddl",
    "timing_ids",
    "timing_history",
    "timing_series_list",
    "timing_totals",
    "top_series",
    "waits",
    "watched_over",
    "write_timings",
}
CALLS = [
    "pipeline.emit('mail.sent', '{}')",
    "pipeline.invalidate('{orders:7}', 'prices:')",
    "pipeline.enqueue('mail.send')",
    "pipeline.enqueue_many('mail.send', '{}')",
    "pipeline.rate_limit('signup', 5)",
    """pipeline.start_workflow('import', '[{"task": "a"}, {"task": "b", "after": ["a"]}]')""",
    "pipeline.record_timing('orders.insert', 1.5)",
    "pipeline.record_timings('orders.insert', '{1.5,2}')",
    "pipeline.remember_queries('{}', 1, '{}', '{}')",
    "pipeline.claim_plan('0')",
    "pipeline.query_plans('0')",
    "pipeline.plan_changes()",
    "pipeline.refuse_plan('0', 'failed', '')",
    "pipeline.save_plan('0', '', '', 'generic', '{}', '{}', 1)",
    "pipeline.percentile('orders.insert', 0.5)",
    "pipeline.latency()",
    "pipeline.statements()",
    "pipeline.waits()",
    "pipeline.latency_histogram('orders.insert')",
    "pipeline.timing_totals('orders.insert')",
    "pipeline.timing_history('orders.insert')",
    "pipeline.timing_series_list()",
    "pipeline.top_series()",
    "pipeline.query_texts('{0}')",
    "pipeline.slow_queries()",
    "pipeline.raise_alert('disk.full', 'no room', 'warning')",
    "pipeline.resolve_alert('disk.full')",
    "pipeline.alerts()",
    "pipeline.cache_get('k', 'e', null, null, 1, 1)",
    "pipeline.cache_put('e', 1, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')",
    "pipeline.cache_raise('e', '{}', '{}', '1:1:')",
    "pipeline.cache_release(1, '{}')",
    "pipeline.cache_turn()",
    "pipeline.now()",
]
NO_DELETE = asyncpg.ObjectNotInPrerequisiteStateError  # a view of several tables, for whoever asks
FUNCTIONS = "select p.* from pg_proc p where p.pronamespace = 'pipeline'::regnamespace"


@pytest.fixture
async def watching(sql: asyncpg.Connection) -> asyncpg.Connection:
    """A database with every kind of generated function, too."""
    await sql.execute("create table public.orders (id int primary key, at timestamptz)")
    await sql.execute(
        "select pipeline.watch('public.orders', columns => '{at}', timing => true, replicated => true)"
    )
    return sql


@pytest.fixture
async def application(sql: asyncpg.Connection, dsn: str) -> AsyncIterator[str]:
    """A role with nothing but usage of the schema."""
    name = f"app_{dsn.rpartition('t_')[2][:16]}"
    await sql.execute(f"create role {name}; grant usage on schema pipeline to {name}")
    yield name
    await sql.execute(f"reset role; drop owned by {name}; drop role {name}")


async def names(sql: asyncpg.Connection, condition: str) -> set[str]:
    """The functions that fulfil a condition; the generated ones as `watch_N_...`."""
    rows = await sql.fetch(f"select proname from ({FUNCTIONS}) p where {condition}")
    return {re.sub(r"\d+", "N", row["proname"]) for row in rows}


def is_generated(name: str) -> bool:
    return name.startswith("watch_N_")


async def test_every_function_pins_its_search_path_and_ends_it_with_pg_temp(watching: asyncpg.Connection) -> None:
    settings = "coalesce((select c from unnest(p.proconfig) c where c like 'search_path=%'), '')"
    assert await names(watching, f"{settings} !~ '^search_path=pg_catalog, (public, )?pg_temp$'") == set()
    # only looking up a name that a person typed goes through public
    assert await names(watching, f"{settings} like '%public%'") <= {"query_problem", "relation_named"}


async def test_only_the_intended_functions_run_as_their_owner(watching: asyncpg.Connection) -> None:
    found = await names(watching, "p.prosecdef")
    assert {name for name in found if not is_generated(name)} == RUN_AS_OWNER
    assert len({name for name in found if is_generated(name)}) == 6


async def test_only_what_is_meant_for_everybody_can_be_executed_by_everybody(
    watching: asyncpg.Connection,
) -> None:
    public = (
        "exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0)"
    )
    assert await names(watching, public) == OPEN


async def test_tables_views_and_sequences_are_closed_but_for_reading_the_feed(
    watching: asyncpg.Connection,
) -> None:
    await watching.execute("select pipeline.maintain_archive()")
    rows = await watching.fetch(
        "select c.relname, a.grantee, a.privilege_type from pg_class c, aclexplode(c.relacl) a"
        " where c.relnamespace = 'pipeline'::regnamespace and a.grantee <> c.relowner"
    )
    granted = {(row["relname"], row["grantee"], row["privilege_type"]) for row in rows}
    assert granted == {(name, 0, "SELECT") for name in READABLE}
    assert (
        await watching.fetch(
            "select from pg_attribute where attacl is not null and attrelid::regclass::text like 'pipeline.%'"
        )
        == []
    )


async def test_the_schema_itself_is_closed_to_everybody(sql: asyncpg.Connection) -> None:
    assert not await sql.fetchval(
        "select exists (select from pg_namespace n, aclexplode(n.nspacl) a"
        " where n.nspname = 'pipeline' and a.grantee <> n.nspowner)"
    )


async def test_every_body_compiles(watching: asyncpg.Connection) -> None:
    rows = await watching.fetch(
        f"select p.oid::regprocedure::text as name, pg_get_functiondef(p.oid) as text from ({FUNCTIONS}) p"
    )
    assert len(rows) > 50
    wrong = {}
    for row in rows:
        transaction = watching.transaction()
        await transaction.start()
        try:
            # migrating has this off, because functions call each other whatever the order of their files
            await watching.execute("set local check_function_bodies = on")
            await watching.execute(row["text"])
        except asyncpg.PostgresError as error:
            wrong[row["name"]] = str(error)
        finally:
            await transaction.rollback()
    assert wrong == {}


@pytest.mark.parametrize("body", ["begin perform 1 1; end", "begin v_nowhere := 1; end"])
async def test_a_body_that_does_not_compile_is_noticed(sql: asyncpg.Connection, body: str) -> None:
    text = f"create function pg_temp.f() returns void language plpgsql as $b$ {body} $b$"
    await sql.execute(f"set check_function_bodies = off; {text}; drop function pg_temp.f")
    with pytest.raises(asyncpg.PostgresSyntaxError):
        await sql.execute(f"set check_function_bodies = on; {text}")


@pytest.mark.parametrize("call", CALLS)
async def test_a_role_with_usage_of_the_schema_can_call(
    sql: asyncpg.Connection, application: str, call: str
) -> None:
    await sql.execute(f"set role {application}")
    await sql.fetch(f"select * from {call}")


async def test_a_role_with_usage_of_the_schema_can_make_jobs_of_its_own_table(
    sql: asyncpg.Connection, application: str
) -> None:
    await sql.execute(f"create schema shop authorization {application}; set role {application}")
    await sql.execute("create table shop.orders (id int)")
    await sql.fetchval("select pipeline.enqueue_on('shop.orders', 'insert', 'ship')")
    await sql.execute("insert into shop.orders values (1); reset role")
    assert await sql.fetchval("select count(*) from pipeline.job where task = 'ship'") == 1


async def test_a_role_without_usage_of_the_schema_can_call_nothing(
    sql: asyncpg.Connection, application: str
) -> None:
    await sql.execute(f"revoke usage on schema pipeline from {application}; set role {application}")
    for call in CALLS:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await sql.fetch(f"select * from {call}")


async def test_a_role_with_usage_of_the_schema_can_execute_nothing_else(
    watching: asyncpg.Connection, application: str
) -> None:
    allowed = await names(watching, f"has_function_privilege('{application}', p.oid, 'execute')")
    assert allowed == OPEN
    await watching.execute(f"set role {application}")
    for call in (
        "watch('public.orders')",
        "unwatch('public.orders')",
        "turn(1)",
        "take_over()",
        "maintain_archive()",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await watching.execute(f"select pipeline.{call}")


async def test_a_role_with_usage_of_the_schema_can_read_the_feed_and_no_other_table_and_write_none(
    sql: asyncpg.Connection, application: str
) -> None:
    rows = await sql.fetch(
        "select relname, relkind = 'S' as counts from pg_class"
        " where relnamespace = 'pipeline'::regnamespace and relkind in ('r', 'p', 'v', 'S')"
    )
    assert len(rows) > 30
    await sql.execute(f"set role {application}")
    readable = set()
    for row in rows:
        name = f"pipeline.{row['relname']}"
        with pytest.raises((asyncpg.InsufficientPrivilegeError, NO_DELETE)):
            await sql.fetch(f"select nextval('{name}')" if row["counts"] else f"delete from {name}")
        try:
            await sql.fetch(f"select * from {name} limit 0")
            readable.add(row["relname"])
        except asyncpg.InsufficientPrivilegeError:
            pass
    assert readable == READABLE
