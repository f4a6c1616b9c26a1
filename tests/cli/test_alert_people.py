"""`pgreflex alerts ack`, `silence`, `resolve`, `note`, `test`: what they do, what is shown of it, and mistakes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from pipeline.core.alert_flush import Pace
from pipeline.core.alert_round import Route
from pipeline.db.alert_delivery import ChannelRow, DeliveryStore
from pipeline.db.alerts import AlertStore
from pipeline.db.connection import Database
from tests.cli.conftest import Cli, assert_explained

EU, US = '{region="eu"}', '{region="us"}'


async def fire(sql: asyncpg.Connection, db: Database) -> None:
    for region in ("eu", "us"):
        await sql.execute(
            "select pipeline.raise_alert('stock', 'only 3 left', 'info', jsonb_build_object('region', $1::text))",
            region,
        )
    await AlertStore(db).take_inbox()


async def states(cli: Cli, dsn: str) -> dict[str, dict[str, Any]]:
    told = json.loads((await cli("alerts", "list", "-d", dsn, "--json")).out)
    return {one["instance"]: one for one in told}


async def test_alerts_are_acknowledged_noted_and_ended_and_it_is_seen_who_did_it(
    cli: Cli, dsn: str, db: Database, sql: asyncpg.Connection
) -> None:
    async def run(*arguments: str) -> str:
        result = await cli("alerts", *arguments, "-d", dsn)
        assert result.status == 0, result
        return result.out

    await fire(sql, db)
    assert await run("ack", "stock", "region=eu", "--note", "looking", "--by", "ann") == "acknowledged  1 alert\n"
    shown = await states(cli, dsn)
    assert (shown[EU]["acknowledged"]["by"], shown[EU]["acknowledged"]["note"]) == ("ann", "looking")
    assert shown[US]["acknowledged"] is None
    assert "  acknowledged by ann: looking" in (await run("list")).splitlines()
    assert await run("ack", "stock", "--by", "bob") == "acknowledged  2 alerts\n"
    assert await run("unack", "stock", EU) == "taken back  1 alert\n"
    assert [one["acknowledged"] is None for one in (await states(cli, dsn)).values()] == [True, False]
    again = await cli("alerts", "unack", "stock", EU, "-d", dsn)
    assert (again.out, again.err) == ("taken back  0 alerts\n", "Nothing of it was acknowledged.\n")

    assert await run("resolve", "stock", "us", "--note", "ordered", "--by", "ann") == "resolved  1 alert\n"
    assert (await states(cli, dsn))[US]["state"] == "resolved"
    await fire(sql, db)  # the one that bob had acknowledged begins anew
    assert (await states(cli, dsn))[US]["acknowledged"] is None
    await run("resolve", "stock", "us", "--note", "ordered", "--by", "ann")
    assert await run("note", "stock", "the supplier was late", "--by", "ann") == "noted  stock\n"
    told = [line.strip() for line in (await run("history")).splitlines()]
    for line in ("looking", "ordered", "the supplier was late", "only 3 left (resolved by ann)"):
        assert line in told
    assert any(" ack by ann " in line for line in told)
    assert "the supplier was late" in await run("show", "stock", "eu")
    notes = json.loads(await run("history", "--json"))["notes"]
    assert [(one["action"], one["by"]) for one in notes][:2] == [("note", "ann"), ("resolve", "ann")]

    for arguments, *words in (
        (["ack", "stok"], "there is no alert rule stok", "Did you mean stock"),
        (["ack", "stock", "region=asia"], "stock has no instance region=asia", EU),
        (["ack", "slow query"], "slow query: it neither pends nor fires", "pipeline.alerts()"),
        (["resolve", "stock", "us"], "neither pends nor fires"),
        (["note", "stock", " "], "the note is empty"),
    ):
        assert_explained(await cli("alerts", *arguments, "-d", dsn), 2, "usage", *words)


async def test_a_silence_says_what_it_holds_back_and_ends(
    cli: Cli, dsn: str, db: Database, sql: asyncpg.Connection
) -> None:
    await fire(sql, db)
    nothing = await cli("alerts", "silences", "-d", dsn)
    assert (nothing.out, nothing.err) == ("", "No silence holds.\n")
    because = ("--reason", "stocktaking", "--by", "ann")
    made = await cli("alerts", "silence", "sto*", "label.region=!eu", "--for", "2h", *because, "-d", dsn)
    assert made.out == "silence  1\n"
    assert "1 alert" in made.err
    assert [one["held"] for one in (await states(cli, dsn)).values()] == ["", "silence 1"]
    assert "  not told: silence 1" in (await cli("alerts", "list", "-d", dsn)).out.splitlines()
    listed = (await cli("alerts", "silences", "-d", dsn)).out.splitlines()
    assert listed[1].split()[0] == "1"
    assert listed[1].endswith("ann  rule=sto* label.region=!eu")
    assert listed[2] == "  stocktaking"
    assert (await cli("alerts", "unsilence", "1", "-d", dsn)).out == "ended  1\n"
    assert [one["held"] for one in (await states(cli, dsn)).values()] == ["", ""]
    past = json.loads((await cli("alerts", "silences", "--past", "-d", dsn, "--json")).out)
    assert [(one["id"], one["active"], one["matchers"]) for one in past] == [
        (1, False, {"rule": "sto*", "label.region": "!eu"})
    ]

    for arguments, *words in (
        (["silence", "stock", "--for", "2h"], "--reason"),
        (["silence", "stock", *because], "give --for or --until"),
        (["silence", "--for", "2h", *because], "give matchers, or --everything"),
        (["silence", "stock", "--everything", "--for", "2h", *because], "give matchers, or --everything"),
        (["silence", "rulee=x", "--for", "2h", *because], "there is no attribute rulee", "rule=slow*"),
        (["silence", "a", "rule=b", "--for", "2h", *because], "rule is given twice"),
        (["silence", "stock", "--for", "soon", *because], "soon is not a time"),
        (["silence", "stock", "--until", "2020-01-01", *because], "2020-01-01 00:00:00+00:00 is over"),
        (["silence", "stock", "--for", "2h", "--reason", " "], "it needs a reason"),
        (["unsilence", "1"], "there is no silence 1 that holds", "alerts silences"),
        (["unsilence", "x"], "is not a valid integer"),
    ):
        assert_explained(await cli("alerts", *arguments, "-d", dsn), 2, "usage", *words)


@asynccontextmanager
async def sender(db: Database, *outcomes: tuple[bool, str]) -> AsyncIterator[None]:
    """Ends the tests of a channel as these say, one after the other, as the job that sends would."""
    store = DeliveryStore(db)

    async def open_one() -> str:
        while True:
            for row in await db.fetch("alert_view/notifications", 60.0, None, None, None, 10):
                if row["state"] == "open":
                    return str(row["id"])
            await asyncio.sleep(0.02)

    async def work() -> None:
        for told, problem in outcomes:
            id_ = await open_one()
            await store.take(id_)
            await store.end(id_, told=told, problem=problem)

    async with asyncio.TaskGroup() as group:
        group.create_task(work())
        yield


async def test_a_channel_is_tried_and_what_became_of_it_is_told(
    cli: Cli, dsn: str, db: Database, sql: asyncpg.Connection
) -> None:
    assert "No daemon has run with channels" in (await cli("alerts", "channels", "-d", dsn)).err
    store = DeliveryStore(db)
    await store.register([ChannelRow("hook", "webhook", ""), ChannelRow("other", "log", "x")], Pace())
    async with sender(db, (True, ""), (False, "hook answered 404")):
        good = await cli("alerts", "test", "hook", "-d", dsn)
        assert (good.status, good.out.split()[0], good.err) == (0, "told", "")
        bad = await cli("alerts", "test", "hook", "-d", dsn)
        assert (bad.status, bad.out.split()[0]) == (3, "failed")
        assert "hook answered 404 (attempt 1)" in bad.err
    unsent = json.loads((await cli("alerts", "test", "hook", "--no-wait", "-d", dsn, "--json")).out)
    assert (unsent["state"], unsent["attempts"]) == ("open", 0)
    listed = {
        one["channel"]: one for one in json.loads((await cli("alerts", "channels", "-d", dsn, "--json")).out)
    }
    assert (listed["hook"]["waiting"], listed["hook"]["failed"], listed["other"]["waiting"]) == (1, 1, 0)
    assert "  hook answered 404" in (await cli("alerts", "channels", "-d", dsn)).out.splitlines()
    wrong = await cli("alerts", "test", "hok", "-d", dsn)
    assert_explained(wrong, 2, "usage", "there is no channel hok", "hook, other")

    await fire(sql, db)
    await cli("alerts", "ack", "stock", "us", "-d", dsn)
    assert await store.round(Route("hook", ({"rule": "stock"},)), Pace()) == 1
    assert await store.round(Route("other", ({"rule": "nothing"},)), Pace()) == 0
    shown = json.loads((await cli("alerts", "show", "stock", "eu", "-d", dsn, "--json")).out)
    assert [(one["channel"], one["told_at"], one["passed"]) for one in shown["told"]] == [
        ("hook", None, False), ("other", None, True),
    ]  # fmt: skip
    [sent] = shown["notifications"]
    assert (sent["state"], sent["alerts"]) == ("open", 1)
    await store.take(sent["id"])
    await store.problem(sent["id"], "no answer in time")
    text = (await cli("alerts", "show", "stock", "eu", "-d", dsn)).out
    assert "being sent, attempt 1: no answer in time" in text
    assert "the channel is not told of alerts like this" in text
    assert "it is acknowledged" in (await cli("alerts", "show", "stock", "us", "-d", dsn)).out
    await store.end(sent["id"], told=True)
    shown = json.loads((await cli("alerts", "show", "stock", "eu", "-d", dsn, "--json")).out)
    assert shown["told"][0]["told_at"] is not None
