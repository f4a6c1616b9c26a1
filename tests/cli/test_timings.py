"""`pgreflex timings`: what it shows, what it says of mistakes, and how watching ends."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys

import asyncpg
import pytest

from pipeline.cli.timings import timings
from pipeline.core.window import Windows
from pipeline.db.connection import Database
from pipeline.db.explain import Explained
from pipeline.db.latency import LatencyStore
from pipeline.db.plans import PlanStore
from tests.cli.conftest import PROGRAM, ROOT, Cli, assert_explained, clean_environment
from tests.conftest import eventually

ONE, TWO = "3fb2" + "0" * 12, "3fc0" + "1" * 12
TEXT = "select *\n  from orders where id = $1"


@pytest.fixture
async def stored(dsn: str, db: Database, sql: asyncpg.Connection) -> str:
    """The address of a database with some series and queries."""
    now = await sql.fetchval("select extract(epoch from now())::float8")
    windows = Windows(lambda: now)
    for ms in (1.0, 3.0, 9.0):
        windows.series("http", {"route": "/cart"}, "http").add_at(ms, now - 20)
    windows.series("http", {"route": "/pay"}, "http").add_at(500.0, now - 20, error=True)
    windows.series("http", {"other": "true"}, "http").add_at(1.0, now - 20)
    windows.series("render").add_at(5.0, now - 7_200)
    for fingerprint, ms in ((ONE, 40.0), (TWO, 2.0)):
        windows.series("query", {"fingerprint": fingerprint}, "query").add_at(ms, now - 20, rows=3)
    store = LatencyStore(db)
    await store.flush(store.number(windows.take(None)))
    await sql.execute(
        "insert into pipeline.query (fingerprint, version, kind, text, first_at, last_at)"
        " values ($1, 1, 'ok', $2, now(), now())",
        ONE,
        TEXT,
    )
    for kind in ("Index Scan", "Seq Scan"):
        plan = {"Node Type": kind, "Relation Name": "orders", "Filter": "(tenant = $1)"}
        await PlanStore(db).save(ONE, Explained(plan, {}, "generic"), 1200.0)
    return dsn


@pytest.mark.parametrize("verb", list(timings.commands))
async def test_every_help_fits_80_columns_and_has_an_example(cli: Cli, verb: str) -> None:
    result = await cli("timings", verb, "-h")
    assert result.status == 0
    assert max(map(len, result.out.splitlines())) <= 80
    assert f"Example: pgreflex timings {verb}" in " ".join(result.out.split())


async def test_the_greatest_series_and_queries_are_listed(cli: Cli, stored: str) -> None:
    result = await cli("timings", "top", "-d", stored)
    lines = [line.split() for line in result.out.splitlines()]
    assert [line[0] for line in lines if line[0] != "select"] == [
        "series", 'http{route="/pay"}', f'query{{fingerprint="{ONE}"}}', 'http{route="/cart"}',
        f'query{{fingerprint="{TWO}"}}', 'http{other="true"}',
    ]  # fmt: skip
    assert "select * from orders where id = $1" in result.out
    assert "10,000 series" in result.err
    assert "\x1b" not in result.out

    result = await cli("timings", "top", "-d", stored, "--source", "query", "--by", "p99", "--limit", "1")
    assert [line.split()[0] for line in result.out.splitlines()] == ["fingerprint", ONE, "select"]
    told = json.loads((await cli("timings", "top", "-d", stored, "--source", "query", "--json")).out)
    assert [(one["fingerprint"], one["query"], one["rows"]) for one in told] == [(ONE, TEXT, 3), (TWO, None, 3)]
    labelled = json.loads((await cli("timings", "top", "-d", stored, "--label", "route=/cart", "--json")).out)
    assert [(one["series"], one["p50_ms"]) for one in labelled] == [('http{route="/cart"}', 3.0)]
    older = json.loads((await cli("timings", "top", "-d", stored, "--over", "3h", "--json")).out)
    assert "render" in [one["series"] for one in older]


async def test_a_list_without_rows_says_why(cli: Cli, stored: str) -> None:
    for arguments, said in (
        (["--source", "htp"], "No series has the source htp; there is http, query, span."),
        (["--source", "span"], "No timings in the last 1h."),
        (["--label", "a=b"], "No timings with these labels in the last 1h."),
    ):
        result = await cli("timings", "top", "-d", stored, *arguments)
        assert (result.status, result.out, result.err.strip()) == (0, "", said)


async def test_everything_about_a_name_a_series_and_a_fingerprint(cli: Cli, stored: str) -> None:
    result = await cli("timings", "show", "-d", stored, "http")
    assert result.out.splitlines()[0] == "http"
    for span in ("1m", "5m", "1h", "1d", "7d", "30d"):
        assert f"\n{span} " in result.out
    assert "label sets in the last 1h" in result.out
    assert "10,000 series" in " ".join(result.out.split())
    told = json.loads((await cli("timings", "show", "-d", stored, "http", "--json")).out)
    assert [span["count"] for span in told["spans"]] == [5] * 6
    assert sum(bucket["count"] for bucket in told["histogram"]) == 5
    one = json.loads((await cli("timings", "show", "-d", stored, 'http{route="/cart"}', "--json")).out)
    assert [span["count"] for span in one["spans"]] == [3] * 6

    result = await cli("timings", "show", "-d", stored, "3fb2")
    assert result.out.splitlines()[0] == f'query  fingerprint="{ONE}"'
    assert TEXT in result.out
    assert "generic plan, seen 1 time from " in result.out
    assert "    Filter: (tenant = $1)\n" in result.out
    assert "    - Index Scan on orders\n    + Seq Scan on orders\n" in result.out
    told = json.loads((await cli("timings", "show", "-d", stored, "3fb2", "--json")).out)
    assert [plan["summary"] for plan in told["plans"]] == ["Seq Scan on orders", "Index Scan on orders"]
    assert [change["plan_before"] for change in told["changes"]] == ["Index Scan on orders"]


async def test_a_name_that_is_not_there_is_answered_by_one_that_is_near(cli: Cli, stored: str) -> None:
    near = await cli("timings", "show", "-d", stored, "htpp")
    assert_explained(near, 2, "usage", "there is no series htpp", "Did you mean http?")
    braces = await cli("timings", "show", "-d", stored, 'http{route="/nothing"}')
    assert_explained(braces, 2, "usage", "there is no series", "Did you mean http?")
    several = await cli("timings", "show", "-d", stored, "3f")
    assert_explained(several, 2, "usage", "there is no series 3f")
    several = await cli("timings", "show", "-d", stored, "3f" + "b200")
    assert several.status == 0
    far = await cli("timings", "show", "-d", stored, "zzzzzz\x1b[2J")
    assert_explained(far, 2, "usage", "zzzzzz?[2J", "timings top")


async def test_nothing_stored_is_said_with_what_to_do(cli: Cli, dsn: str) -> None:
    assert "pgreflex watch" in (await cli("timings", "top", "-d", dsn)).err
    assert_explained(await cli("timings", "show", "-d", dsn, "a"), 2, "usage", "No timing has been stored yet")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["top", "--over", "-5m"], "is not a time"),
        (["top", "--over", "0"], "400 days"),
        (["top", "--over", "500d"], "400 days"),
        (["top", "--by", "speed"], "speed"),
        (["top", "--label", "region"], "is no label"),
        (["top", "--limit", "0"], "limit"),
        (["watch", "--every", "0"], "0.1 or more"),
    ],
)
async def test_an_option_that_cannot_be_meant_is_explained(cli: Cli, arguments: list[str], words: str) -> None:
    assert_explained(await cli("timings", *arguments), 2, "usage", words)


async def test_watching_into_a_file_prints_plain_pictures(cli: Cli, stored: str) -> None:
    watch = ["timings", "watch", "-d", stored, "--every", "0.1", "--times", "2"]
    result = await cli(*watch)
    assert result.status == 0
    assert result.out.count("the last 5m, by total") == 2
    [row, *_rest] = [line for line in result.out.splitlines() if line.startswith('http{route="/cart"}')]
    assert row.split()[1] == "3"
    assert "█" in row
    assert "\x1b" not in result.out
    told = [json.loads(line) for line in (await cli(*watch, "--json")).out.splitlines()]
    assert [one["over_seconds"] for one in told] == [300, 300]
    assert sum(point["count"] for point in told[0]["top"][0]["points"]) == told[0]["top"][0]["count"]


async def test_watching_on_a_terminal_of_80_columns_ends_with_ctrl_c(stored: str) -> None:
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, "timings", "watch", "-d", stored, "--every", "0.2",
        env=clean_environment(PYTHONPATH=str(ROOT), COLUMNS="80", LINES="30", TERM="xterm"),
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    seen = bytearray()
    loop = asyncio.get_running_loop()
    loop.add_reader(ours, lambda: seen.extend(_read(ours)))
    await eventually(lambda: seen.count(b"by total") >= 2, within=20.0)
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 10) == 130
    loop.remove_reader(ours)
    os.close(ours)
    text = seen.decode()
    assert "Traceback" not in text
    assert "http" in text
    assert text.rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in text[-200:], "the cursor is shown again"


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the other side has gone
        return b""
