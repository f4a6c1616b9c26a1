"""What each verb does, prints and leaves as exit status."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from pipeline import __version__
from pipeline.cli.program import VERBS
from pipeline.core import status
from pipeline.db import migrate as migrations
from tests.cli.conftest import Cli, Programs, assert_explained

TELLS = status.Status(
    version=__version__,
    process="db1-17",
    at=1_700_000_060.0,
    started_at=1_700_000_000.0,
    ready=True,
    draining=False,
    services=(
        status.ServiceHealth("feed", True, "leading", 2),
        status.ServiceHealth("jobs", False, "no lease"),
    ),
    feed=status.FeedStatus(connected=True, events_total=12),
    cache=status.CacheStatus(
        entries=3, bytes=400, checks_total=1100, violations_total=1, fresh_within_1s=1100 / 1101
    ),
    jobs=status.JobsStatus(queues=(status.QueueStatus("mail", ready=4, paused=True),), finished_total=9),
    alerts=(status.AlertStatus("slow", "firing", "critical", 1.7e9, "p95 over 100 ms"),),
)


class Daemon(ThreadingHTTPServer):
    """Answers as a daemon does: a status, two probes, and a token if one is set."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.token: str | None = None
        self.answers: dict[str, tuple[int, bytes]] = {
            "/api/v1/status": (200, msgspec.json.encode(TELLS)),
            "/livez": (200, b"ok"),
            "/readyz": (503, b"[-]feed: not connected"),
        }


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        daemon: Any = self.server
        code, body = daemon.answers[self.path]
        if daemon.token and self.headers.get("Authorization") != f"Bearer {daemon.token}":
            code, body = 401, b""
        self.send_response(code)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    server = Daemon()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def at(daemon: Daemon) -> dict[str, str]:
    return {"PGREFLEX_HTTP_PORT": str(daemon.server_address[1])}


@pytest.mark.parametrize("verb", [None, *(verb.name for verb in VERBS)])
async def test_every_help_is_short_fits_80_columns_and_has_an_example(cli: Cli, verb: str | None) -> None:
    result = await cli(*filter(None, [verb]), "-h")
    assert result.status == 0
    assert result.err == ""
    assert max(map(len, result.out.splitlines())) <= 80
    assert len(result.out.splitlines()) <= (30 if verb else 40)  # the whole command has a line for each verb
    assert f"Example: pgreflex {verb or ''}" in " ".join(result.out.split())


async def test_without_a_verb_the_help_goes_to_stderr_with_status_2(cli: Cli) -> None:
    result = await cli()
    assert (result.status, result.out) == (2, "")
    assert "Commands:" in result.err


async def test_the_version_is_told_in_every_way(cli: Cli) -> None:
    assert (await cli("-V")).out == f"pgreflex {__version__}\n"
    assert (await cli("version")).out.startswith(f"pgreflex  {__version__}\n")
    assert json.loads((await cli("version", "--json")).out)["pgreflex"] == __version__


async def test_run_hands_the_configuration_over(cli: Cli, programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "mytasks.py").write_text("")
    result = await cli(
        "-d", "postgresql://h/d", "run", "--import", "mytasks", "--queues", "mail:3,*:5", "--port", "0", "-v"
    )
    assert result.status == 0, result
    config = programs.config
    assert config is not None
    assert (config.dsn, config.imports, config.http.port) == ("postgresql://h/d", ("mytasks",), 0)
    assert (config.jobs.queues, config.log.level) == ({"mail": 3, "*": 5}, "debug")


async def test_a_users_own_handlers_do_not_shadow_ours(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "handlers.py").write_text("raise RuntimeError('shadowed')\n")
    assert (await cli("run", "--import", "handlers")).status == 0


async def test_demo_hands_its_flags_over_and_its_status_back(cli: Cli, programs: Programs) -> None:
    result = await cli("demo", "--port", "9000", "--data", "here", "--plain")
    assert result.status == 7
    assert programs.demo_args == {"data": Path("here"), "plain": True}
    assert programs.config is not None
    assert programs.config.http.port == 9000


async def test_global_flags_stand_before_or_after_the_verb(cli: Cli, dsn: str) -> None:
    before = await cli("--json", "-d", dsn, "watched")
    after = await cli("watched", "-d", dsn, "--json")
    assert before == after
    assert (after.status, after.out) == (0, "[]\n")


async def test_an_address_as_psql_takes_it_reaches_the_server(cli: Cli, dsn: str) -> None:
    mark = "&" if "?" in dsn else "?"
    for address in (f"{dsn}{mark}connect_timeout=5", dsn.replace("postgresql://", "postgresql+psycopg://")):
        assert (await cli("watched", "-d", address)).status == 0


async def test_migrate_installs_and_tells_what_ran(cli: Cli, empty_dsn: str) -> None:
    names = [file.name for file in migrations.files()]
    assert (await cli("migrate", "--exit-code", "-d", empty_dsn)).status == 3
    looked = await cli("migrate", "--status", "--json", "-d", empty_dsn)
    assert (looked.status, json.loads(looked.out)) == (0, {"pending": names})
    ran = await cli("migrate", "-d", empty_dsn)
    assert (ran.status, ran.out) == (0, "".join(f"applied  {name}\n" for name in names))
    again = await cli("migrate", "-d", empty_dsn)
    assert (again.status, again.out, again.err) == (0, "", "The schema is up to date.\n")
    assert (await cli("migrate", "--exit-code", "-d", empty_dsn)).status == 0


async def test_watch_watched_and_unwatch(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute('create table public."Odd [name]" (id int primary key, "a b" text)')
    name = 'public."Odd [name]"'
    watching = await cli("watch", name, "--keys", "id", "--columns", "a b", "--timing", "-d", dsn)
    assert watching.status == 0, watching
    assert watching.out.startswith("watched  ")
    [told] = json.loads((await cli("watched", "--json", "-d", dsn)).out)
    assert (told["keys"], told["columns"], told["timing"], told["durable"]) == (["id"], ["a b"], True, False)
    table = await cli("watched", "-d", dsn)
    assert "Odd [name]" in table.out
    gone = await cli("unwatch", name, "-d", dsn)
    assert (gone.status, gone.out) == (0, f"unwatched  {name}\n")
    again = await cli("unwatch", name, "-d", dsn)
    assert (again.status, again.out, again.err) == (0, "", f"{name} was not watched.\n")


async def test_emit_sends_its_argument_or_what_stdin_holds(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    await cli("emit", "prices", "hello", "-d", dsn)
    await cli("emit", "prices", "-", "-d", dsn, stdin="a\nb\n")
    result = await cli("emit", "prices", "-d", dsn)
    assert (result.status, result.out, result.err) == (0, "", "")
    rows = await sql.fetch("select name, payload from pipeline.outbox order by id")
    assert [tuple(row) for row in rows] == [("prices", "hello"), ("prices", "a\nb\n"), ("prices", None)]


async def test_enqueue_adds_a_job_and_prints_its_id(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    call = ["enqueue", "shop.mail", '{"to": 7}', "--queue", "mail", "--in", "1h30m", "--priority", "-3"]
    result = await cli(*call, "-d", dsn)
    assert result.status == 0, result
    row = await sql.fetchrow(
        """select id, task, args, queue, priority, extract(epoch from run_at - created_at)::int as delay
           from pipeline.job"""
    )
    assert row is not None
    assert result.out == f"{row['id']}\n"
    assert (row["task"], json.loads(row["args"]), row["queue"]) == ("shop.mail", {"to": 7}, "mail")
    assert (row["priority"], row["delay"]) == (-3, 5400)


@pytest.mark.parametrize("delay", ["5x", "m", "-5m", "1h 30m", ""])
async def test_a_delay_that_is_no_time_is_refused(cli: Cli, delay: str) -> None:
    assert_explained(await cli("enqueue", "t", "--in", delay), 2, "usage", "5m")


async def test_status_tells_what_the_daemon_does(cli: Cli, daemon: Daemon) -> None:
    result = await cli("status", **at(daemon))
    assert result.status == 0, result
    assert result.out.splitlines() == [
        f"pgreflex {__version__}  db1-17  ready  since 2023-11-14 22:13:20 UTC",
        "  ok  feed             leading  2 restarts",
        "  BAD jobs             no lease",
        "feed    connected, 12 events, tables watched: 0",
        "        write to delivery: unknown",
        "cache   3 entries, 400 bytes, hit ratio unknown",
        "        fresh within 1 s: 99.9 %, 1100 checked",
        "        1 of the checked reads were wrong",
        "jobs    9 finished, 0 failed",
        "        mail: 4 ready, 0 delayed, 0 running, paused",
        "alert   slow firing (critical): p95 over 100 ms",
    ]
    told = json.loads((await cli("status", "--json", **at(daemon))).out)
    assert told == json.loads(msgspec.json.encode(TELLS))


async def test_status_shows_its_token_and_asks_for_one(cli: Cli, daemon: Daemon) -> None:
    daemon.token = token = "open sesame, now"
    assert_explained(await cli("status", **at(daemon)), 1, "permission-missing", "PGREFLEX_HTTP_VIEWER_TOKEN")
    assert (await cli("status", PGREFLEX_HTTP_VIEWER_TOKEN=token, **at(daemon))).status == 0
    assert (await cli("status", PGREFLEX_HTTP_ADMIN_TOKEN=token, **at(daemon))).status == 0


async def test_something_else_that_listens_is_not_taken_for_a_daemon(cli: Cli, daemon: Daemon) -> None:
    daemon.answers["/api/v1/status"] = (200, b"<html>")
    assert_explained(await cli("status", **at(daemon)), 1, "daemon-unreachable", "not the status of a pgreflex")
    daemon.answers["/api/v1/status"] = (404, b"")
    assert_explained(await cli("status", **at(daemon)), 1, "daemon-unreachable", "answered 404")


async def test_health_asks_whether_alive_or_ready(cli: Cli, daemon: Daemon) -> None:
    alive = await cli("health", **at(daemon))
    assert (alive.status, alive.out) == (0, "ok\n")
    ready = await cli("health", "--ready", **at(daemon))
    assert (ready.status, ready.out) == (1, "[-]feed: not connected\n")


async def test_a_proxy_is_not_asked_for_a_daemon_on_this_host(cli: Cli, daemon: Daemon) -> None:
    assert (await cli("health", http_proxy="http://127.0.0.1:1", **at(daemon))).status == 0


@pytest.mark.parametrize(
    ("args", "env", "colored"),
    [
        (["stauts"], {}, False),
        (["--color", "always", "stauts"], {}, True),
        (["--color", "always", "stauts"], {"NO_COLOR": "1"}, True),
        (["--color", "never", "stauts"], {}, False),
    ],
)
async def test_colours_follow_the_flag_and_no_color(
    cli: Cli, args: list[str], env: dict[str, str], colored: bool
) -> None:
    assert ("\x1b[" in (await cli(*args, **env)).err) is colored
