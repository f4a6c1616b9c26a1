"""Every mistake of a user: what is said, what to do, the exit status, and no traceback."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from pipeline.db import migrate as migrations
from tests.cli.conftest import Cli, assert_explained
from tests.conftest import with_database

Process = Callable[..., Awaitable[asyncio.subprocess.Process]]


def as_role(dsn: str, role: str, password: str = "") -> str:
    """The same database as another role."""
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    login = f"{role}:{password}" if password else role
    return urlunsplit(parts._replace(netloc=f"{login}@{host}"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_no_server_tells_the_address_that_was_tried_and_who_named_it(cli: Cli) -> None:
    dsn = f"postgresql://app:s%40cret@127.0.0.1:{free_port()}/shop"
    result = await cli("migrate", PGREFLEX_DSN=dsn)
    assert_explained(result, 69, "database-unavailable", "refused", "app:********@127.0.0.1", "(env PGREFLEX_DSN)")
    assert "s%40cret" not in result.err


async def test_no_such_database(cli: Cli, server_dsn: str) -> None:
    result = await cli("watched", "-d", with_database(server_dsn, "nowhere"))
    assert_explained(result, 69, "login-failed", '"nowhere" does not exist')


async def test_no_such_role(cli: Cli, server_dsn: str) -> None:
    result = await cli("watched", "-d", as_role(server_dsn, "nobody_at_all"))
    assert_explained(result, 69, "login-failed", "nobody_at_all")


async def test_a_database_without_pgreflex_sends_to_migrate(cli: Cli, empty_dsn: str) -> None:
    assert_explained(await cli("watched", "-d", empty_dsn), 1, "not-installed", "pgreflex migrate")


async def test_a_server_that_is_too_old(cli: Cli, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "OLDEST_SERVER", 990000)  # no such server is at hand: the limit moves
    assert_explained(await cli("migrate", "-d", dsn), 1, "server-not-suitable", "needs 14 or newer", "--dsn")


async def test_a_role_without_rights_may_not_migrate(
    cli: Cli, empty_dsn: str, new_role: Callable[..., Awaitable[str]]
) -> None:
    result = await cli("migrate", "-d", as_role(empty_dsn, await new_role()))
    assert_explained(result, 1, "permission-missing", "permission denied for database")


async def test_a_role_without_rights_may_not_watch(
    cli: Cli, dsn: str, sql: asyncpg.Connection, new_role: Callable[..., Awaitable[str]]
) -> None:
    await sql.execute("create table public.orders (id int primary key)")
    result = await cli("watch", "orders", "-d", as_role(dsn, await new_role()))
    assert_explained(result, 1, "permission-missing", "permission denied for schema pipeline")


async def test_a_read_only_role(cli: Cli, dsn: str, new_role: Callable[..., Awaitable[str]]) -> None:
    role = await new_role("set default_transaction_read_only = on")
    result = await cli("migrate", "-d", as_role(dsn, role))
    assert_explained(result, 1, "server-not-suitable", "read-only", "default_transaction_read_only")


async def test_a_table_that_does_not_exist(cli: Cli, dsn: str) -> None:
    result = await cli("watch", "public.odrers", "-d", dsn)
    assert result.status == 1
    assert "public.odrers" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("made", "arguments", "said"),
    [
        ("create view v as select 1 as id", ("v",), "is a view"),
        ("create materialized view m as select 1 as id", ("m",), "is a materialized view"),
        ("create table t (id int)", ("t", "--keys", "nokey"), "has no column nokey"),
    ],
)
async def test_what_cannot_be_watched_is_named(
    cli: Cli, dsn: str, sql: asyncpg.Connection, made: str, arguments: tuple[str, ...], said: str
) -> None:
    await sql.execute(made)
    assert_explained(await cli("watch", *arguments, "-d", dsn), 1, "not-watchable", said)


async def test_a_setting_that_does_not_exist_names_the_nearest_and_the_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "pgreflex.toml").write_text("[http]\n\nprot = 1\n")
    result = await cli("check")
    assert_explained(result, 78, "config", "pgreflex.toml:3", "http.prot", "did you mean http.port?")


async def test_a_variable_that_does_not_exist_names_the_nearest(cli: Cli) -> None:
    result = await cli("check", PGREFLEX_HTP_PORT="1")
    assert_explained(result, 78, "config", "PGREFLEX_HTP_PORT", "did you mean PGREFLEX_HTTP_PORT?")


async def test_broken_toml_names_line_and_column(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[http]\nhost = local\n")
    result = await cli("-c", "mine.toml", "run")
    assert_explained(result, 78, "config", "mine.toml is not valid TOML", "line 2, column 8")


async def test_a_configuration_file_that_is_not_there(cli: Cli) -> None:
    assert_explained(await cli("run", "-c", "no.toml"), 78, "config", "no.toml", "No such file", "--config")


async def test_a_value_of_the_wrong_kind_names_its_source(cli: Cli) -> None:
    result = await cli("run", PGREFLEX_HTTP__PORT="many")
    assert_explained(
        result, 78, "config", "http.port (env PGREFLEX_HTTP__PORT) should be a whole number, not 'many'"
    )


async def test_a_flag_of_the_wrong_kind_names_the_flag(cli: Cli) -> None:
    assert_explained(await cli("run", "--port", "70000"), 78, "config", "http.port (--port)", "65535")


async def test_a_module_that_is_not_there(cli: Cli) -> None:
    assert_explained(await cli("run", "--import", "nope.tasks"), 1, "task", "no module nope.tasks")


async def test_a_module_that_fails_names_the_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "brokentasks.py").write_text("x = 1\ny = undefined_name\n")
    result = await cli("run", "--import", "brokentasks")
    assert_explained(result, 1, "task", "brokentasks cannot be imported: NameError", "brokentasks.py, line 2")


async def test_a_module_that_is_not_python_names_the_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "unpython.py").write_text("x = 1\ndef\n")
    assert_explained(await cli("run", "--import", "unpython"), 1, "task", "SyntaxError", "unpython.py, line 2")


async def test_a_module_that_misses_another_names_that_one(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "needy.py").write_text("import not_installed_here\n")
    assert_explained(await cli("run", "--import", "needy"), 1, "task", "'not_installed_here'", "needy.py, line 1")


async def test_an_unknown_verb_names_the_nearest(cli: Cli) -> None:
    assert_explained(await cli("stauts"), 2, "usage", "no command stauts", "`pgreflex status`")


async def test_an_unknown_option_names_the_nearest(cli: Cli) -> None:
    assert_explained(await cli("watch", "t", "--kyes", "id"), 2, "usage", "--kyes", "--keys")


async def test_a_missing_argument_sends_to_the_help(cli: Cli) -> None:
    assert_explained(await cli("watch"), 2, "usage", "missing argument 'TABLE'", "`pgreflex watch --help`")


@pytest.mark.parametrize("args", ["nothing", "[1]", '{"a":'])
async def test_arguments_of_a_job_that_are_no_json_object(cli: Cli, args: str) -> None:
    assert_explained(await cli("enqueue", "shop.mail", args), 2, "usage", "JSON")


@pytest.mark.parametrize("dsn", ["mysql://app:hunter2@h/d", "hunter2", "postgresql://app:hun@ter2@h/d"])
async def test_an_address_that_cannot_be_one_is_refused_and_never_repeated(cli: Cli, dsn: str) -> None:
    result = await cli("migrate", DATABASE_URL=dsn)
    assert_explained(result, 78, "config", "env DATABASE_URL")
    assert "ter2" not in result.err


async def test_no_daemon(cli: Cli) -> None:
    port = str(free_port())
    result = await cli("status", PGREFLEX_HTTP_PORT=port)
    assert_explained(result, 1, "daemon-unreachable", f"http://127.0.0.1:{port}", "pgreflex run")


async def test_a_defect_shows_its_traceback_without_secrets(process: Process) -> None:
    command = await process("demo")
    out, err = await command.communicate()
    assert command.returncode == 1
    assert b"Traceback" in err
    assert b"error[defect]" in err
    assert b"hunter2" not in out + err


async def test_ctrl_c_cleans_up_and_ends_with_130(process: Process) -> None:
    command = await process("run")
    assert command.stdout is not None
    assert await command.stdout.readline() == b"up on 8787\n"
    command.send_signal(signal.SIGINT)
    out, err = await command.communicate()
    assert (command.returncode, out, err) == (130, b"cleaned up\n", b"\n")  # the line that ^C stands on


async def test_sigterm_ends_what_does_not_handle_it_which_a_shell_tells_as_143(process: Process) -> None:
    command = await process("run")
    assert command.stdout is not None
    assert await command.stdout.readline() == b"up on 8787\n"
    command.terminate()
    assert await command.wait() == -signal.SIGTERM


@pytest.mark.parametrize("args", [["version"], ["version", "--json"], ["--help"]])
async def test_a_reader_that_goes_away_is_no_error(process: Process, args: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = await process(*args, stdout=writer)
    os.close(writer)
    assert await command.communicate() == (None, b"")


async def test_a_table_of_somebody_else_tells_which_membership_is_missing(
    cli: Cli, dsn: str, sql: asyncpg.Connection, new_role: Callable[..., Awaitable[str]]
) -> None:
    owner, role = await new_role(), await new_role()
    await sql.execute("create table public.parcel (id int primary key)")
    await sql.execute(f"alter table public.parcel owner to {owner}")
    await sql.execute(f"grant usage on schema pipeline to {role}")
    await sql.execute(f"grant execute on all functions in schema pipeline to {role}")
    result = await cli("watch", "public.parcel", "-d", as_role(dsn, role))
    await sql.execute(f"drop owned by {owner}, {role}")
    assert_explained(result, 1, "permission-missing", f"role {role} does not own public.parcel")
    assert f"grant {owner} to {role}" in " ".join(result.err.split())


async def test_the_row_that_an_error_is_about_is_not_told(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute("alter table pipeline.job add constraint short check (length(task) < 5)")
    result = await cli("enqueue", "shop.thank", '{"card": "4111-1111"}', "-d", dsn)
    assert result.status == 1
    assert "violates check constraint" in result.err
    assert "4111-1111" not in result.err
    assert "DETAIL" not in result.err
