"""What the tests of alerts share: rules, timings, and a pass of judging."""

from __future__ import annotations

import datetime
import json
from typing import Any

import asyncpg

from pipeline.core.alert_rule import Judged
from pipeline.core.digest import Digest
from pipeline.core.window import Part, Series
from pipeline.db.alert_judge import AlertJudge
from pipeline.db.alerts import AlertStore
from pipeline.db.connection import Database
from pipeline.db.latency import LatencyStore
from pipeline.errors import PgreflexError

NOON = 1_800_000_000


async def set_rule(sql: asyncpg.Connection, name: str = "slow", **fields: Any) -> int:
    """Make a rule, by default on the p95 of orders.insert."""
    if "query" not in fields and "metric" not in fields:
        fields = {"series": "orders.insert", "threshold": 100.0, "metric": "latency.p95", **fields}
    elif str(fields.get("metric")).startswith("latency."):
        fields = {"series": "orders.insert", "threshold": 100.0, **fields}
    fields = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in fields.items()}
    named = ", ".join(f"{field} => ${place}" for place, field in enumerate(fields, 2))
    return int(await sql.fetchval(f"select pipeline.alert_rule_set($1, {named})", name, *fields.values()))


async def write(
    dsn: str,
    start: int,
    ms: float,
    *,
    series: str = "orders.insert",
    count: int = 10,
    errors: int | None = None,
    labels: dict[str, str] | None = None,
    source: str = "span",
) -> None:
    """Write a part as a recorder does; half of its timings failed unless `errors` says otherwise."""
    named = Series(series, source, series.partition("{")[0], labels or {})
    failed = count // 2 if errors is None else errors
    async with Database(dsn) as db:
        store = LatencyStore(db)
        await store.flush(store.number([Part(named, start, Digest([ms] * count), errors=failed)]))


async def judge_all(dsn: str, **options: Any) -> list[Judged]:
    """Judge as a process does that has just started: a new pool, store and judge."""
    async with Database(dsn) as db:
        store, judge = AlertStore(db), AlertJudge(db, **options)
        judged = await store.take_inbox()
        judged += await store.end_orphans()
        for rule in await judge.due_rules():
            try:
                judged += await judge.judge(rule.id)
            except PgreflexError:
                continue  # noted with the rule
        return judged


async def states(sql: asyncpg.Connection) -> list[tuple[str, str, str]]:
    """Every instance that is not inactive, with its state."""
    return [
        (row["rule"], row["instance"], row["state"]) for row in await sql.fetch("select * from pipeline.alerts()")
    ]


async def health(sql: asyncpg.Connection, name: str) -> tuple[str, str | None]:
    """How a rule fares, and what is wrong with it."""
    row = await sql.fetchrow("select health, problem from pipeline.alert_rules() where name = $1", name)
    return tuple(row)


def over(text: str) -> datetime.timedelta:
    """A length of time: `5 seconds`."""
    number, unit = text.split()
    return datetime.timedelta(**{unit: float(number)})
