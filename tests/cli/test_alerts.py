"""`pgreflex alerts`: what it shows of alerts and rules, what it changes, and what it says of mistakes."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import asyncpg
import click
import pytest

from pipeline.cli.alerts import alerts
from pipeline.db.alert_judge import AlertJudge
from pipeline.db.alerts import AlertStore
from pipeline.db.connection import Database
from pipeline.errors import QueryFailed
from tests.cli.conftest import Cli, assert_explained
from tests.cli.test_mistakes import as_role

EU = '{region="eu"}'


async def made(sql: asyncpg.Connection, db: Database) -> None:
    """A rule that fires, one that pends, one that nobody can judge, and two raised alerts, one of them over."""
    await sql.execute("create table late (tenant text, age float8); insert into late values ('acme', 90)")
    await sql.execute("update pipeline.alert_rule set enabled = false")
    for name, need, query in (
        ("late orders", 1, "select tenant, age as value from late"),
        ("later orders", 3, "select tenant, age as value from late"),
        ("broken", 1, "select 1 / (age - 90)::int as value from late"),
    ):
        await sql.execute(
            "select pipeline.alert_rule_set($1, query => $2, threshold => 60, need => $3, severity => 'critical',"
            " message => '{label.tenant} waits', runbook => 'https://wiki.example.org/late')",
            name, query, need,
        )  # fmt: skip
    await sql.execute("update pipeline.alert_progress set judged_until = now() - interval '3 minutes'")
    judge = AlertJudge(db)
    for rule in await judge.due_rules():
        with suppress(QueryFailed):
            await judge.judge(rule.id)
    await sql.execute(
        "update pipeline.alert_progress set judged_at = now(), problem = 'division by zero'"
        " where rule_id = (select id from pipeline.alert_rule where name = 'broken')"
    )
    for region in ("eu", "us"):
        await sql.execute(
            "select pipeline.raise_alert('stock', 'only 3 left', 'info', jsonb_build_object('region', $1::text))",
            region,
        )
    await sql.execute("""select pipeline.resolve_alert('stock', '{"region": "us"}')""")
    await AlertStore(db).take_inbox()


def leaves(group: click.Group, path: str) -> list[str]:
    """All verbs of the group, each with the verbs above it."""
    return [
        leaf
        for name, one in group.commands.items()
        for leaf in (leaves(one, f"{path} {name}") if isinstance(one, click.Group) else [f"{path} {name}"])
    ]


@pytest.mark.parametrize("verb", leaves(alerts, "alerts"))
async def test_every_help_fits_80_columns_and_has_an_example(cli: Cli, verb: str) -> None:
    result = await cli(*verb.split(), "-h")
    assert result.status == 0
    assert max(map(len, result.out.splitlines())) <= 80
    assert f"Example: pgreflex {verb}" in " ".join(result.out.split())


async def test_alerts_are_listed_shown_and_remembered(
    cli: Cli, dsn: str, db: Database, sql: asyncpg.Connection
) -> None:
    nothing = await cli("alerts", "list", "-d", dsn)
    assert (nothing.out, nothing.err) == ("", "No alert fires or pends.\n")
    await made(sql, db)

    listed = await cli("alerts", "list", "-d", dsn)
    lines = listed.out.splitlines()
    assert [line.split()[0] for line in lines if line[0] != " "] == [
        "state",
        "firing",
        "firing",
        "pending",
        "resolved",
    ]
    assert "  90 > 60  late orders" in lines[1]
    assert lines[2:4] == ['  {tenant="acme"}', "  acme waits"]
    assert "\x1b" not in listed.out
    firing = json.loads((await cli("alerts", "list", "-d", dsn, "--state", "firing", "--json")).out)
    assert [(one["rule"], one["severity"], one["labels"]) for one in firing] == [
        ("late orders", "critical", {"tenant": "acme"}), ("stock", "info", {"region": "eu"}),
    ]  # fmt: skip
    assert firing[0]["value"] == 90
    few = await cli("alerts", "list", "-d", dsn, "--limit", "1")
    assert "more than 1" in few.err
    grave = await cli("alerts", "list", "-d", dsn, "--severity", "warning")
    assert (grave.out, grave.err) == ("", "Nothing like that at present.\n")

    pending = await cli("alerts", "show", "-d", dsn, "later orders")
    assert "1 of 3 bad windows" in pending.out
    assert "runbook  https://wiki.example.org/late" in pending.out
    raised = await cli("alerts", "show", "-d", dsn, "stock")
    assert "(raised by SQL)" in raised.out
    assert "region=" in raised.out
    for text in (EU, "region=eu", '"eu"'):
        one = json.loads((await cli("alerts", "show", "-d", dsn, "stock", text, "--json")).out)
        assert (one["instance"], one["alerts"][0]["state"], len(one["history"])) == (EU, "firing", 1)

    told = await cli("alerts", "history", "-d", dsn, "--rule", "stock")
    changes = [" ".join(line.split()[2:5]) for line in told.out.splitlines() if line[:2] == "20"]
    assert changes == ["firing -> resolved", "inactive -> firing", "inactive -> firing"]
    newest = json.loads((await cli("alerts", "history", "-d", dsn, "--limit", "1", "--json")).out)
    assert [(one["rule"], one["after"], one["reason"]) for one in newest["changes"]] == [
        ("stock", "resolved", "resolved")
    ]

    rules = await cli("alerts", "rules", "list", "-d", dsn, "--health", "error")
    assert [line.split()[0] for line in rules.out.splitlines()] == ["health", "error", "division"]
    assert (await cli("alerts", "rules", "check", "-d", dsn)).status == 3

    for arguments, *words in (
        (["show", "late order"], "there is no alert rule late order", "Did you mean late orders"),
        (["show", "zzzz\x1b"], "there is no alert rule zzzz", "alerts rules list"),
        (["show", "stock", "asia"], "stock has no instance asia", EU),
        (["show", "stock", "region"], "2 instances of stock match region", EU),
        (["list", "--rule", "late order"], "Did you mean late orders"),
        (["history", "--rule", "late order"], "Did you mean late orders"),
        (["list", "--state", "fring"], "fring' is no state; there are firing, pending, resolved"),
        (["history", "--over", "0"], "the span is empty"),
    ):
        assert_explained(await cli("alerts", *arguments, "-d", dsn), 2, "usage", *words)


async def test_rules_are_added_edited_switched_and_removed(
    cli: Cli, dsn: str, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    async def rules(*arguments: str) -> tuple[int, str, str]:
        result = await cli("alerts", "rules", *arguments, "-d", dsn)
        return result.status, result.out, result.err

    cart = ("cart", "--metric", "latency.p95", "--series", "cart", "--label", "region=eu")
    assert (await rules("add", *cart, "--threshold", "50"))[:2] == (0, "added  cart\n")
    status, out, err = await rules("edit", "cart", "--need", "5", "--over", "30 s", "--source", "http")
    assert (status, out, err) == (0, "changed  cart\n", "")
    row = await sql.fetchrow("select * from pipeline.alert_rule where name = 'cart'")
    assert (row["need"], row["over"].seconds, row["sources"], row["threshold"]) == (5, 30, ["http"], 50)
    assert json.loads(row["labels"]) == {"region": "eu"}
    await rules("disable", "slow query")
    assert not await sql.fetchval("select enabled from pipeline.alert_rule where name = 'slow query'")
    await rules("enable", "slow query")
    assert await sql.fetchval("select enabled from pipeline.alert_rule where name = 'slow query'")
    assert await sql.fetchval("select origin from pipeline.alert_rule where name = 'slow query'") == "builtin"
    await sql.execute("update pipeline.alert_rule set origin = 'file' where name = 'cart'")
    status, out, err = await rules("remove", "cart")
    assert (status, out) == (0, "removed  cart\n")
    assert "configuration" in err

    for arguments, *words in (
        (["add", "slow query", "--threshold", "1"], "there is a rule slow query already", "rules edit"),
        (["add", "x", "--metric", "latency.p9"], "there is no metric latency.p9", "alert_metrics()"),
        (["add", "x", "--query", "select from nothing"], "its query cannot be run", "nothing"),
        (["add", "x", "--query", "delete from pipeline.alert_rule"], "its query cannot be run"),
        (["edit", "slow query", "--over", "7 seconds"], "windows of", "a multiple of 5 s"),
        (["edit", "slow query", "--over", "banana"], "banana"),
        (["edit", "slow query"], "nothing is given to change"),
        (["edit", "slow qury", "--need", "2"], "there is no alert rule slow qury", "Did you mean slow query"),
        (["disable", "nonsense"], "there is no alert rule nonsense"),
        (["remove", "slow qury"], "Did you mean slow query"),
        (["check", "slow qury"], "Did you mean slow query"),
    ):
        assert_explained(await cli("alerts", "rules", *arguments, "-d", dsn), 2, "usage", *words)

    file = tmp_path / "rules.toml"
    text = '[[alerts.rules]]\nname = "a"\nmetric = "latency.p95"\nseries = "cart"\nthreshold = 5\n'
    file.write_text(text, encoding="utf-8")
    before = await sql.fetchval("select count(*) from pipeline.alert_rule")
    assert (await rules("check", str(file)))[:2] == (0, "")
    file.write_text(
        text + '[[alerts.rules]]\nname = "b"\nmetric = "latency.p95"\nthreshold = 5\n', encoding="utf-8"
    )
    status, out, _err = await rules("check", str(file))
    assert (status, out.startswith("b: alert rule b: it names no series")) == (3, True)
    assert await sql.fetchval("select count(*) from pipeline.alert_rule") == before
    file.write_text(text + "treshold = 7", encoding="utf-8")
    assert_explained(
        await cli("alerts", "rules", "check", str(file), "-d", dsn),
        78,
        "config",
        "rule 1: there is no field treshold",
    )
    file.write_text("[[alerts", encoding="utf-8")
    assert_explained(await cli("alerts", "rules", "check", str(file), "-d", dsn), 78, "config", "this is not TOML")
    gone = await cli("alerts", "rules", "check", "gone.toml", "-d", dsn)
    assert_explained(gone, 78, "config", "gone.toml", "cannot be read")


async def test_a_database_without_pgreflex_and_a_role_without_rights_are_told_what_to_do(
    cli: Cli, dsn: str, empty_dsn: str, new_role: Callable[..., Awaitable[str]]
) -> None:
    missing = await cli("alerts", "list", "-d", empty_dsn)
    assert_explained(missing, missing.status, "not-installed", "pgreflex migrate")
    refused = await cli("alerts", "rules", "list", "-d", as_role(dsn, await new_role()))
    assert_explained(refused, refused.status, "permission-missing")
