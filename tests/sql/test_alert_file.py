"""Rules from the configuration and from Python: written, followed, and never over somebody else's."""

from __future__ import annotations

import asyncpg
import pytest

from handlers.alert_rules import FileRules
from pipeline.core.alert_definition import Definition, RuleFields
from pipeline.db.alert_rules import AlertRules
from pipeline.db.connection import Database
from pipeline.errors import QueryFailed, UsageError


async def origins(sql: asyncpg.Connection, *names: str) -> dict[str, tuple[str, float | None]]:
    rows = await sql.fetch(
        "select name, origin, threshold from pipeline.alert_rule where name = any($1)", list(names)
    )
    return {row["name"]: (row["origin"], row["threshold"]) for row in rows}


async def test_rules_of_the_configuration_are_followed_and_all_others_stay(
    db: Database, sql: asyncpg.Connection
) -> None:
    store = AlertRules(db)
    await store.set("mine", metric="latency.p95", series="a", threshold=1.0)
    names = ("mine", "first", "second", "queue age", "deadlocks")
    rule = {"metric": "latency.p95", "series": "a"}
    first = Definition("first", **rule, threshold=1.0, labels={"region": "eu"})
    builtin = Definition("queue age", metric="jobs.queue_age", threshold=9.0)
    refused = await store.follow(
        [
            first,
            builtin,
            Definition("mine", **rule, threshold=2.0),
            Definition("second", query="select * from later"),
            Definition("", **rule, threshold=2.0),
        ]
    )
    assert refused == {
        "mine": "there is a rule of this name that did not come from a file",
        "second": 'alert rule second: its query cannot be run: relation "later" does not exist',
        "": "an alert rule needs a name of 1 to 200 characters",
    }
    assert await origins(sql, *names) == {
        "mine": ("user", 1.0),
        "first": ("file", 1.0),
        "queue age": ("file", 9.0),
        "deadlocks": ("builtin", 5.0),
    }
    progress = "select judged_until from pipeline.alert_progress join pipeline.alert_rule on id = rule_id"
    before = await sql.fetchval(f"{progress} where name = 'first'")
    await sql.execute("create table later (id int)")
    assert await store.follow([first, Definition("second", query="select * from later")]) == {}
    assert await origins(sql, *names) == {
        "mine": ("user", 1.0),
        "first": ("file", 1.0),
        "second": ("file", None),
        "queue age": ("builtin", 300.0),
        "deadlocks": ("builtin", 5.0),
    }
    assert await sql.fetchval(f"{progress} where name = 'first'") == before, "it was not begun anew"
    assert await store.follow([]) == {}
    assert set(await origins(sql, *names)) == {"mine", "queue age", "deadlocks"}


async def test_a_daemon_tells_which_rule_was_refused_and_goes_on(db: Database, sql: asyncpg.Connection) -> None:
    rules = FileRules(AlertRules(db), [Definition("late", query="select * from later")])
    await rules.start()
    assert rules.healthy().ok
    assert "rule late was refused" in rules.healthy().detail
    await sql.execute("create table later (id int)")
    await rules.follow()
    assert rules.healthy().detail == ""


async def test_rules_are_set_listed_checked_and_removed_from_python(db: Database, sql: asyncpg.Connection) -> None:
    store = AlertRules(db)
    every: RuleFields = {
        "metric": "latency.p99",
        "series": "http{%",
        "sources": ["http"],
        "labels": {"route": "/a"},
        "over": "30 s",
        "comparison": ">=",
        "threshold": 9.0,
        "clear_threshold": 8.0,
        "need": 4,
        "keep_firing": 5,
        "hold_max": 6,
        "min_samples": 7,
        "max_instances": 8,
        "severity": "critical",
        "message": "{value}",
        "runbook": "https://example.org",
        "enabled": False,
    }
    first = await store.set("mine", **every)
    row = await sql.fetchrow("select *, over::text as length from pipeline.alert_rule where name = 'mine'")
    assert {name: row[name] for name in every if name not in ("labels", "over")} == {
        name: value for name, value in every.items() if name not in ("labels", "over")
    }
    assert (row["labels"], row["length"], row["origin"]) == ('{"route": "/a"}', "00:00:30", "user")
    assert await store.set("mine", query="select 1 as one") == first
    [health] = [one for one in await store.list() if one.name == "mine"]
    assert (health.origin, health.metric, health.health, health.problem) == ("user", "sql", "new", None)
    assert await store.check("mine") is None
    assert (await store.remove("mine"), await store.remove("mine")) == (True, False)
    with pytest.raises(QueryFailed, match="there is no alert rule mine"):
        await store.check("mine")
    with pytest.raises(QueryFailed, match="there is no metric nothing"):
        await store.set("mine", metric="nothing", threshold=1.0)
    with pytest.raises(UsageError, match="alert rule mine: .*thresold"):
        await store.set("mine", thresold=1.0)  # type: ignore[call-arg]  # the test is about that
