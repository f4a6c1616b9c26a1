"""`pgreflex check`: what it finds, on real servers, and how it judges what is not at hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from pipeline.core.checkup import Facts, Failure, Finding, Server, WatchedTable, judge, worst
from pipeline.db import checkup
from pipeline.embedded import EmbeddedServer
from tests.cli.conftest import Cli, assert_explained
from tests.cli.test_mistakes import as_role, free_port
from tests.conftest import with_database

WELL = Facts(
    server=Server(
        version="18.1",
        version_num=180001,
        in_recovery=False,
        read_only=False,
        role_name="app",
        database_name="shop",
        superuser=False,
        may_create_schema=True,
        owns_schema=True,
        has_event_trigger=False,
        statements_loaded=True,
        statements_version="1.12",
        statements_offered="1.12",
        statements_track="top",
        query_ids="auto",
        reads_all=True,
        max_connections=100,
        reserved_connections=3,
        connections=10,
        max_prepared_transactions=0,
        queue_usage=0.0,
    ),
    pending=(),
    clock_seconds=0.01,
    round_trip_seconds=0.001,
    listen_tried=True,
    watched=(WatchedTable("orders", None, None),),
)


def judged(facts: Facts = WELL, *, two_phase: bool = False, **server: Any) -> dict[str, Finding]:
    assert isinstance(facts.server, Server)
    facts = msgspec.structs.replace(facts, server=msgspec.structs.replace(facts.server, **server))
    return {one.subject: one for one in judge(facts, two_phase=two_phase)}


async def checked(cli: Cli, *args: str, **env: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit status and findings by subject."""
    result = await cli("check", "--json", *args, **env)
    told = json.loads(result.out)
    assert (result.status == 1) is (told["result"] == "problem")
    return result.status, {one["subject"]: one for one in told["findings"]}


def test_a_good_server_is_ok_in_every_respect() -> None:
    assert {one.level for one in judged().values()} == {"ok"}


@pytest.mark.parametrize(
    ("server", "subject", "level", "words"),
    [
        (
            {"version_num": 130014, "version": "13.14"},
            "version",
            "problem",
            "Postgres 13.14; pgreflex needs 14",
        ),
        ({"version_num": 140000, "version": "14.0"}, "version", "ok", "Postgres 14.0"),
        ({"in_recovery": True}, "writes", "problem", "standby"),
        ({"read_only": True}, "writes", "problem", "read-only"),
        ({"owns_schema": False}, "rights", "problem", "does not own the schema"),
        ({"owns_schema": None, "may_create_schema": False}, "rights", "problem", "may not create a schema"),
        ({"owns_schema": None}, "rights", "ok", "may create the schema"),
        ({}, "event triggers", "ok", "checked every few seconds"),
        ({"connections": 90}, "connections", "warning", "7 of 100 free"),
        ({"connections": 99}, "connections", "warning", "0 of 100 free"),
        ({"max_prepared_transactions": 5}, "two-phase commit", "warning", "max_prepared_transactions is 5"),
        ({"queue_usage": 0.6}, "notification queue", "warning", "60% full"),
        ({"statements_loaded": False}, "pg_stat_statements", "warning", "not loaded"),
        ({"statements_version": None}, "pg_stat_statements", "ok", "not created in this database"),
        ({"statements_version": "1.8"}, "pg_stat_statements", "warning", "when its counters began"),
        ({"statements_version": "1.9"}, "pg_stat_statements", "warning", "the server offers 1.12"),
        ({"statements_track": "none"}, "pg_stat_statements", "warning", "nothing is counted"),
        ({"query_ids": "off"}, "pg_stat_statements", "warning", "compute_query_id is off"),
        ({"reads_all": False}, "pg_stat_statements", "warning", "those of others are hidden"),
        ({"reads_all": False}, "sessions", "warning", "sees its own only"),
    ],
)
def test_each_fact_of_a_server_is_judged(server: dict[str, Any], subject: str, level: str, words: str) -> None:
    found = judged(**server)[subject]
    assert (found.level, words in found.detail) == (level, True), found
    assert level == "ok" or found.hint


def test_two_phase_commit_is_no_warning_once_it_is_set() -> None:
    assert judged(two_phase=True, max_prepared_transactions=5)["two-phase commit"].level == "ok"


@pytest.mark.parametrize(
    ("offset", "round_trip", "level"),
    [
        (0.9, 0.0, "ok"),
        (1.1, 0.0, "warning"),
        (-1.1, 0.0, "warning"),
        (1.1, 0.4, "ok"),
        (None, 0.0, "warning"),
    ],
)
def test_a_clock_is_only_called_wrong_when_it_surely_is(
    offset: float | None, round_trip: float, level: str
) -> None:
    facts = msgspec.structs.replace(WELL, clock_seconds=offset, round_trip_seconds=round_trip)
    assert judged(facts)["clock"].level == level


def test_what_was_not_looked_at_is_unknown_and_not_fine() -> None:
    facts = msgspec.structs.replace(
        WELL, pending=None, clock_seconds=None, listen_tried=False, watched=Failure("gone")
    )
    for subject in ("schema", "clock", "LISTEN", "watched tables"):
        found = judged(facts)[subject]
        assert (found.level, found.detail.startswith("unknown")) == ("warning", True)


def test_the_worst_finding_decides() -> None:
    levels = [Finding(level, "x", "y") for level in ("ok", "warning", "problem")]
    assert [worst(levels[:end]) for end in range(4)] == ["ok", "ok", "warning", "problem"]


async def test_a_migrated_database_has_no_problem(cli: Cli, dsn: str) -> None:
    result = await cli("check", "-d", dsn)
    assert result.status == 0, result.out
    assert "a notification came back" in result.out
    assert "--dsn" in result.out


async def test_every_setting_is_shown_with_its_source_and_no_secret(cli: Cli, dsn: str) -> None:
    env = {
        "PGREFLEX_HTTP_ADMIN_TOKEN": "hunter2 and so on",
        "PGREFLEX_DSN": as_role(dsn, "postgres", "hunter2"),
    }
    for args in (["check"], ["check", "--json"]):
        result = await cli(*args, **env)
        assert "hunter2" not in result.out + result.err
        assert "env PGREFLEX_HTTP_ADMIN_TOKEN" in result.out
        assert "postgres:********@" in result.out


async def test_migrations_to_run_are_a_problem(cli: Cli, empty_dsn: str) -> None:
    status, found = await checked(cli, "-d", empty_dsn)
    assert status == 1
    assert (found["schema"]["level"], found["schema"]["hint"]) == ("problem", "Run `pgreflex migrate`.")


async def test_a_listen_address_that_hears_nothing_is_a_problem(
    cli: Cli, dsn: str, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "LISTEN_SECONDS", 0.2)
    status, found = await checked(cli, "-d", dsn, PGREFLEX_LISTEN_DSN=empty_dsn)
    assert (status, found["LISTEN"]["level"]) == (1, "problem")
    assert "no notification came back" in found["LISTEN"]["detail"]
    assert "listen_dsn" in found["LISTEN"]["hint"]


async def test_a_listen_address_without_a_server_is_a_problem_of_that_address(cli: Cli, dsn: str) -> None:
    _, found = await checked(cli, "-d", dsn, PGREFLEX_LISTEN_DSN=f"postgresql://127.0.0.1:{free_port()}/x")
    assert found["LISTEN"]["level"] == "problem"
    assert found["LISTEN"]["detail"].startswith("listen_dsn: ")


async def test_no_server_is_the_only_finding(cli: Cli) -> None:
    status, found = await checked(cli, "-d", f"postgresql://127.0.0.1:{free_port()}/x")
    assert (status, list(found)) == (1, ["connection"])


async def test_a_role_without_rights_is_told_which_it_lacks(
    cli: Cli, dsn: str, empty_dsn: str, new_role: Callable[..., Awaitable[str]]
) -> None:
    role = await new_role()
    _, found = await checked(cli, "-d", as_role(dsn, role))
    assert "does not own the schema pipeline" in found["rights"]["detail"]
    assert found["rights"]["hint"].endswith(f"grant usage on schema pipeline to {role}")
    _, found = await checked(cli, "-d", as_role(empty_dsn, role))
    assert found["rights"]["hint"].startswith("grant create on database")


async def test_a_read_only_role_is_told_how_to_mend_it(
    cli: Cli, dsn: str, new_role: Callable[..., Awaitable[str]]
) -> None:
    role = await new_role("set default_transaction_read_only = on")
    _, found = await checked(cli, "-d", as_role(dsn, role))
    assert found["writes"]["level"] == "problem"
    assert role in found["writes"]["hint"]


async def test_a_watched_table_that_does_not_report_is_a_warning(
    cli: Cli, dsn: str, sql: asyncpg.Connection
) -> None:
    await sql.execute("create table public.orders (id int primary key)")
    await sql.execute("select pipeline.watch('public.orders')")
    assert (await checked(cli, "-d", dsn))[1]["watched tables"]["detail"] == "1"
    await sql.execute("alter table public.orders disable trigger user")
    _, found = await checked(cli, "-d", dsn)
    assert found["table orders"]["level"] == "warning"


async def test_a_watched_table_of_somebody_else_needs_membership_in_its_owner(
    cli: Cli, dsn: str, sql: asyncpg.Connection, new_role: Callable[..., Awaitable[str]]
) -> None:
    role = await new_role()
    await sql.execute('create table public."Odd [name]" (id int primary key)')
    await sql.execute("""select pipeline.watch('public."Odd [name]"')""")
    await sql.execute(f"grant {role} to current_user; alter schema pipeline owner to {role}")
    await sql.execute(f"grant select on all tables in schema pipeline to {role}")
    await sql.execute(f"grant execute on all functions in schema pipeline to {role}")
    _, found = await checked(cli, "-d", as_role(dsn, role))
    assert found["table Odd [name]"]["detail"] == "this role does not own it, so it cannot mend its triggers"
    assert found["table Odd [name]"]["hint"].endswith(f" to {role}")
    await sql.execute(f'alter table public."Odd [name]" owner to {role}')
    _, found = await checked(cli, "-d", as_role(dsn, role))
    assert found["watched tables"]["level"] == "ok"
    await sql.execute(f"reassign owned by {role} to current_user; drop owned by {role}")


async def test_a_module_that_cannot_be_imported_is_a_problem(cli: Cli, dsn: str) -> None:
    status, found = await checked(cli, "-d", dsn, PGREFLEX_IMPORTS="no.such")
    assert (status, found["imports"]["level"]) == (1, "problem")


@pytest.mark.parametrize(("host", "refused"), [("0.0.0.0", True), ("127.0.0.2", False), ("::1", False)])
async def test_an_open_address_without_a_token_is_a_problem(cli: Cli, dsn: str, host: str, refused: bool) -> None:
    _, found = await checked(cli, "-d", dsn, PGREFLEX_HTTP_HOST=host)
    assert (found.get("http", {}).get("level") == "problem") is refused
    _, found = await checked(cli, "-d", dsn, PGREFLEX_HTTP_HOST=host, PGREFLEX_HTTP_VIEWER_TOKEN="x" * 16)
    assert "http" not in found


@pytest.fixture(scope="module")
def strict() -> Iterator[EmbeddedServer]:
    """A server that asks for a password."""
    home = Path(tempfile.mkdtemp(prefix="pgreflex-test-"))
    server = EmbeddedServer(home, tcp_port=free_port(), settings={"fsync": "off"})
    try:
        server.start()
        yield server
    finally:
        server.stop("immediate")
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def standby(strict: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """A real standby of it."""
    home = Path(tempfile.mkdtemp(prefix="pgreflex-test-"))
    argv, env = strict.command("pg_basebackup", "-D", str(home / "data"), "-c", "fast", "-X", "stream", "-R")
    subprocess.run(argv, env=env, check=True, capture_output=True)
    owner = strict.data.stat()
    for path in [home / "data", *(home / "data").rglob("*")]:
        shutil.chown(path, owner.st_uid, owner.st_gid)
    home.chmod(0o711)
    server = EmbeddedServer(home, settings={"fsync": "off"})
    try:
        server.start()
        yield server
    finally:
        server.stop("immediate")
        shutil.rmtree(home, ignore_errors=True)


async def test_a_wrong_password(cli: Cli, strict: EmbeddedServer) -> None:
    right = strict.tcp_dsn
    assert right is not None
    assert (await cli("migrate", "--status", "-d", right)).status == 0
    wrong = as_role(right, "postgres", "hunter2")
    result = await cli("migrate", "-d", wrong)
    assert_explained(result, 69, "login-failed", "password authentication failed", "pg_hba.conf")
    assert "hunter2" not in result.err
    _, found = await checked(cli, "-d", wrong)
    assert "password authentication failed" in found["connection"]["detail"]


async def test_a_standby(cli: Cli, standby: EmbeddedServer) -> None:
    result = await cli("migrate", "-d", standby.dsn)
    assert_explained(result, 1, "server-not-suitable", "standby", "target_session_attrs=read-write")
    status, found = await checked(cli, "-d", standby.dsn)
    assert "standby" in found["writes"]["detail"]
    assert (status, [one for one in found if found[one]["level"] == "problem"]) == (1, ["writes"])


async def test_a_database_that_does_not_exist_on_a_strict_server(cli: Cli, strict: EmbeddedServer) -> None:
    assert strict.tcp_dsn is not None
    result = await cli("watched", "-d", with_database(strict.tcp_dsn, "nowhere"))
    assert_explained(result, 69, "login-failed", '"nowhere" does not exist')
