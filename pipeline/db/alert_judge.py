"""Judges rules: measures, and under the rule's lock says what became of each instance.

Owns: when a rule is due, and that each (rule, instance, window) is judged exactly once. Must not know the state
machine's rules (core decides) or how anything is told.

A window is measured first, without any lock, and then judged in one transaction that holds the rule's row of
alert_progress: unless another evaluator has judged it meanwhile, or somebody edited the rule, states, history and
notices are saved and the rule advances. So however many evaluators there are, and wherever one of them dies, a
window counts once or not at all, and no transaction lasts as long as a slow query.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

import msgspec

from pipeline.core.alert import State
from pipeline.core.alert_metric import METRICS, Reading, instance_name, matching, per_minute
from pipeline.core.alert_rule import Alert, Judged, Look, Rule, clash, due_windows, judge_window, outdated
from pipeline.core.window import series_name
from pipeline.db.alert_query import QUERY_SECONDS, run_query
from pipeline.db.alert_rows import alert_of, labels_of, rule_of, save
from pipeline.db.alert_timings import PERCENTILES, readings_of
from pipeline.db.connection import Connection, Database, Record, translated
from pipeline.db.statements import statement
from pipeline.errors import DatabaseUnavailable, PermissionMissing, PgreflexError, QueryFailed

GRACE_SECONDS = 1.5  # recorders write a window within 0.75 s of its close
KEEP_SHORT_SECONDS = 15 * 60.0  # parts of five seconds are there for 20 minutes
KEEP_LONG_SECONDS = 47 * 3_600.0  # parts of a minute for 48 hours
MEASURE_SECONDS = 15.0

Local: TypeAlias = Callable[[], Awaitable[Sequence[Reading]]]

_COUNTERS = msgspec.json.Decoder(dict[str, float])


class DueRule(msgspec.Struct, frozen=True):
    """A rule that has a window to be judged. query: whether a query of the user's has to run for it."""

    id: int
    name: str
    query: bool


class AlertJudge:
    """Judges rules. grace: seconds for which a window is open to late timings. local: the metrics that this
    process itself knows. query_seconds: how long a query of the user's may take. pause: seconds from the last
    `due_rules` until the next window closes.
    """

    def __init__(
        self,
        database: Database,
        *,
        grace: float = GRACE_SECONDS,
        local: Mapping[str, Local] | None = None,
        query_seconds: float = QUERY_SECONDS,
    ) -> None:
        self._database = database
        self._grace = grace
        self.local = local or {}
        self.query_seconds = query_seconds

    async def due_rules(self) -> list[DueRule]:
        """The enabled rules of which a window has closed and was not judged; sets `pause`."""
        rows = await self._database.fetch("alerts/rules")
        if any(row["judged_until"] > row["now"] + row["seconds"] for row in rows):
            await self._database.execute("alerts/turn_back")
        self.pause = min(map(self._closes_in, rows), default=math.inf)
        return [DueRule(row["id"], row["name"], row["metric"] == "sql") for row in rows if self._due(row)]

    async def judge(self, rule_id: int) -> list[Judged]:
        """Judge a rule on its due windows. Returns what changed.

        Raises QueryFailed with the reason when it cannot be judged, which is also noted with the rule; a
        window that can be measured later is tried again, any other is given up: it counts as not judged.
        """
        row = await self._database.fetchrow("alerts/rule", rule_id)
        changed: list[Judged] = []
        if row is None:
            return changed
        rule = rule_of(row)
        windows = self._due(row)
        if rule.metric not in METRICS:  # a newer version has made it
            raise QueryFailed(f"this version does not know the metric {rule.metric}")
        for start in windows:
            began = time.monotonic()
            try:
                look, counters = await self._look(rule, row, start, late=start != windows[-1])
                judged = await self._judge(rule, look, counters, row["now"], began)
            except DatabaseUnavailable:
                raise
            except PgreflexError as error:
                until = None if rule.kind.kind == "timing" else float(start + rule.seconds)
                await self._database.execute("alerts/fail", rule.id, error.message[:1000], until)
                raise
            if judged is None:
                break
            changed += judged
        return changed

    async def preview(self, rule_id: int) -> list[Reading]:
        """What a rule would be judged on now; nothing is judged. Raises QueryFailed when it cannot be had."""
        row = await self._database.fetchrow("alerts/rule", rule_id)
        if row is None:
            return []
        rule = rule_of(row)
        start = int((row["now"] - self._grace) // rule.seconds) * rule.seconds - rule.seconds
        look, _counters = await self._look(rule, row, start, late=False)
        return list(look.readings)

    async def _look(
        self, rule: Rule, row: Record, start: int, *, late: bool
    ) -> tuple[Look, dict[str, float] | None]:
        """Measure one window. Returns the readings, and what counters said."""
        partial, counters = False, None
        if rule.query is not None:
            readings, partial = await run_query(
                self._database.dsn, rule.query, most=rule.max_instances, seconds=self.query_seconds
            )
        elif rule.kind.kind == "local":
            local = self.local.get(rule.metric)
            readings = await local() if local is not None else []
        elif rule.metric.startswith("latency.") and rule.metric != "latency.regression":
            readings = await readings_of(await self._measure(rule, start), rule.metric)
        else:
            try:
                readings = [_reading(one) for one in await self._measure(rule, start)]
            except PermissionMissing:  # what the daemon's role may not see is unknown
                readings = []
        if rule.kind.kind == "counter":
            counters = {one.instance: one.value for one in readings if one.value is not None}
            since = None if row["counted_at"] is None else row["now"] - row["counted_at"]
            known = since is not None and 0 < since <= 2.5 * rule.seconds
            readings = per_minute(readings, _COUNTERS.decode(row["counters"]), since if known else None)
        readings = matching(readings, rule.labels)
        double = clash(readings)
        if double is not None:
            raise QueryFailed(f"two rows have the same labels: {double or 'none'}")
        return Look(start, readings, partial, late), counters

    async def _measure(self, rule: Rule, start: int) -> list[Record]:
        args: tuple[object, ...]
        if rule.kind.args == "series":
            labels = msgspec.json.encode(rule.labels).decode()
            sources = None if rule.sources is None else list(rule.sources)
            args = (rule.series, labels, sources, float(start), rule.seconds)
            if rule.metric != "latency.regression":
                args = (*args, rule.metric in PERCENTILES)
        elif rule.kind.args == "window":
            args = (float(start + rule.seconds), rule.seconds)
        else:
            args = rule.kind.args
        return await self._database.fetch(rule.kind.statement, *args, timeout=MEASURE_SECONDS)

    async def _judge(
        self, measured: Rule, look: Look, counters: dict[str, float] | None, now: float, began: float
    ) -> list[Judged] | None:
        """Judge one measured window; None when another evaluator is at it or was, or the rule is another now."""
        async with self._database.transaction() as connection:
            with translated():
                row = await connection.fetchrow(statement("alerts/lock_rule"), measured.id)
                if row is None or row["judged_until"] > look.start or row["revision"] != measured.revision:
                    return None
                rule = rule_of(row)
                rows = await connection.fetch(statement("alerts/states"), "metric", [rule.name])
                alerts = {one["instance"]: alert_of(one) for one in rows}
                changed = await _apply(connection, alerts, outdated(rule, alerts, float(look.start)))
                judged, problem = judge_window(rule, alerts, look)
                changed += await _apply(connection, alerts, judged)
                await connection.execute(
                    statement("alerts/advance"),
                    rule.id,
                    float(look.start + rule.seconds),
                    problem,
                    len(look.readings),
                    (time.monotonic() - began) * 1000,
                    None if counters is None else msgspec.json.encode(counters).decode(),
                    None if counters is None else now,
                )
        return changed

    def _closes_in(self, row: Record) -> float:
        return float(row["seconds"] - (row["now"] - self._grace_of(row)) % row["seconds"])

    def _grace_of(self, row: Record) -> float:
        """What counts the events of a window waits for those that are committed late."""
        return self._grace if METRICS.get(row["metric"], METRICS["sql"]).args in ("series", "window") else 0.0

    def _due(self, row: Record) -> list[int]:
        seconds = row["seconds"]
        if row["metric"].startswith("latency."):
            keep = KEEP_SHORT_SECONDS if seconds < 60 else KEEP_LONG_SECONDS
            return due_windows(row["judged_until"], row["now"], seconds=seconds, grace=self._grace, keep=keep)
        # what is looked at now says nothing of windows before the last
        return due_windows(
            row["judged_until"], row["now"], seconds=seconds, grace=self._grace_of(row), keep=2.0 * seconds
        )[-1:]


async def _apply(connection: Connection, alerts: dict[str, Alert], judged: Sequence[Judged]) -> list[Judged]:
    """Save what differs from `alerts`, and bring `alerts` up to date."""
    changed = [one for one in judged if one.alert != alerts.get(one.alert.instance)]
    changed = [one for one in changed if not one.before == one.alert.life.state == State.INACTIVE]
    await save(connection, changed)
    for one in changed:
        if one.alert.life.state is State.INACTIVE:
            alerts.pop(one.alert.instance, None)
        else:
            alerts[one.alert.instance] = one.alert
    return changed


def _reading(row: Record) -> Reading:
    labels = labels_of(row["labels"])
    instance = row["series"] if "series" in row.keys() else series_name("", labels)  # noqa: SIM118
    return Reading(instance_name(instance), row["value"], labels, row["samples"], row["detail"])
