"""Alerts in Postgres: judging under a lock, the inbox, what is told.

Owns: the tables alert_*. Must not know the state machine's rules (core decides) or how anything is sent.

A rule is judged in one transaction that holds the rule's row of alert_progress: read how far it was judged,
judge every window since, save states, history and notices, advance. So each (rule, instance, window) is
judged exactly once, by however many evaluators, and a crash at any point leaves all of it or nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from pipeline.core.alert import NEVER, Life, Policy, State
from pipeline.core.alert_notice import Delivery, Notice
from pipeline.core.alert_rule import (
    Alert,
    Judged,
    Measure,
    Rule,
    due_windows,
    end,
    judge_window,
    outdated,
    signal,
)
from pipeline.db.connection import Connection, Database, Record, translated
from pipeline.db.statements import statement

GRACE_SECONDS = 2.0  # recorders write a window within a second of its close
KEEP_SHORT_SECONDS = 15 * 60.0  # parts of five seconds are there for 20 minutes
KEEP_LONG_SECONDS = 47 * 3_600.0  # parts of a minute for 48 hours
INBOX_BATCH = 200
LEASE_SECONDS = 60.0  # for CLAIM_BATCH attempts of ten seconds each
CLAIM_BATCH = 5


class DueRule(msgspec.Struct, frozen=True):
    """A rule that has windows to be judged."""

    id: int
    name: str


class AlertStore:
    """Judges rules, takes in what SQL raised, and hands out what has to be told."""

    def __init__(self, database: Database, *, grace: float = GRACE_SECONDS) -> None:
        self._database = database
        self._grace = grace

    async def due_rules(self) -> list[DueRule]:
        """The enabled rules of which a window has closed and was not judged."""
        rows = await self._database.fetch("alerts/rules")
        return [DueRule(row["id"], row["name"]) for row in rows if self._due(row)]

    async def judge(self, rule_id: int) -> list[Judged]:
        """Judge a rule on its due windows; nothing when another evaluator is at it. Returns what changed."""
        async with self._database.transaction() as connection:
            with translated():
                row = await connection.fetchrow(statement("alerts/lock_rule"), rule_id)
                if row is None or not (windows := self._due(row)):
                    return []
                return await self._judge_locked(connection, _rule(row), windows)

    async def _judge_locked(self, connection: Connection, rule: Rule, windows: list[int]) -> list[Judged]:
        rows = await connection.fetch(statement("alerts/states"), "metric", [rule.name])
        alerts = {row["instance"]: _alert(row) for row in rows}
        changed = await self._apply(connection, alerts, outdated(rule, alerts, float(windows[0])))
        problem = ""
        for start in windows:
            measured = await connection.fetch(statement("alerts/measure"), rule.series, float(start), rule.seconds)
            measures = [msgspec.convert(dict(one), Measure) for one in measured]
            judged, problem = judge_window(rule, alerts, measures, start)
            changed += await self._apply(connection, alerts, judged)
        upto = float(windows[-1] + rule.seconds)
        await connection.execute(statement("alerts/advance"), rule.id, upto, problem)
        return changed

    async def _apply(
        self, connection: Connection, alerts: dict[str, Alert], judged: Sequence[Judged]
    ) -> list[Judged]:
        """Save what differs from `alerts`, and bring `alerts` up to date."""
        changed = [one for one in judged if one.alert != alerts.get(one.alert.instance)]
        changed = [one for one in changed if not one.before == one.alert.life.state == State.INACTIVE]
        await _save(connection, changed)
        for one in changed:
            if one.alert.life.state is State.INACTIVE:
                alerts.pop(one.alert.instance, None)
            else:
                alerts[one.alert.instance] = one.alert
        return changed

    async def set_problem(self, rule_id: int, problem: str) -> None:
        """Note why a rule could not be judged; its instances stay as they are."""
        await self._database.execute("alerts/set_problem", rule_id, problem)

    async def end_orphans(self) -> list[Judged]:
        """Resolve the instances whose rule was deleted or disabled."""
        async with self._database.transaction() as connection:
            with translated():
                rows = await connection.fetch(statement("alerts/orphans"))
                if not rows:
                    return []
                now = await connection.fetchval(statement("latency/clock"))
                judged = [end(_alert(row), now, "rule deleted or disabled") for row in rows]
                await _save(connection, judged)
                return judged

    async def take_inbox(self) -> list[Judged]:
        """Take in the oldest messages of raise_alert and resolve_alert; returns what they changed."""
        async with self._database.transaction() as connection:
            with translated():
                if not await connection.fetchval(statement("alerts/lock_inbox")):
                    return []
                messages = await connection.fetch(statement("alerts/take_inbox"), INBOX_BATCH)
                if not messages:
                    return []
                return await self._take(connection, messages)

    async def _take(self, connection: Connection, messages: Sequence[Record]) -> list[Judged]:
        names = sorted({message["name"] for message in messages})
        rows = await connection.fetch(statement("alerts/states"), "raised", names)
        alerts = {(row["rule"], row["instance"]): _alert(row) for row in rows}
        judged = []
        for message in messages:
            key = (message["name"], message["instance"])
            held = alerts.get(key) or Alert("raised", *key, NEVER, message["severity"], message["message"])
            if message["raised"]:
                held = msgspec.structs.replace(held, severity=message["severity"], message=message["message"])
            one = signal(held, raised=message["raised"], at=message["at"], episode=message["id"])
            alerts[key] = one.alert
            judged.append(one)
        for batch in _rounds(judged):
            await _save(connection, batch)
        return judged

    async def current(self) -> list[Alert]:
        """The instances that are pending, firing, or resolved within 15 minutes; at most 500."""
        return [_alert(row) for row in await self._database.fetch("alerts/current")]

    async def register_sinks(self, names: Sequence[str]) -> None:
        """From now on these sinks are told."""
        await self._database.execute("alerts/register_sinks", list(names))

    async def claim(self, sink: str) -> list[Delivery]:
        """What the sink has to be told now, in order; nobody else gets it within LEASE_SECONDS."""
        rows = await self._database.fetch("alerts/claim", sink, LEASE_SECONDS, CLAIM_BATCH)
        rows.sort(key=lambda row: row["place"])
        return [Delivery(msgspec.convert(dict(row), Notice), row["attempts"]) for row in rows]

    async def delivered(self, notice: str, sink: str) -> None:
        """Note that the sink accepted the notice."""
        await self._database.execute("alerts/delivered", notice, sink)

    async def not_delivered(self, notice: str, sink: str, *, pause: float, problem: str) -> None:
        """Note why it did not; it is handed out again after `pause` seconds."""
        await self._database.execute("alerts/not_delivered", notice, sink, pause, problem[:500])

    async def prune(self) -> None:
        """Delete what nobody needs any more."""
        await self._database.execute("alerts/prune")

    def _due(self, row: Record) -> list[int]:
        keep = KEEP_SHORT_SECONDS if row["seconds"] < 60 else KEEP_LONG_SECONDS
        return due_windows(row["judged_until"], row["now"], seconds=row["seconds"], grace=self._grace, keep=keep)


async def _save(connection: Connection, judged: Sequence[Judged]) -> None:
    if not judged:
        return
    rows = []
    for one in judged:
        row = {**msgspec.structs.asdict(one.alert), **msgspec.structs.asdict(one.alert.life)}
        del row["life"]
        row |= {"before": one.before, "change": one.change, "at": one.at, "reason": one.reason}
        rows.append(row)
    await connection.execute(statement("alerts/save"), msgspec.json.encode(rows).decode())


def _rounds(judged: Iterable[Judged]) -> list[list[Judged]]:
    """Split into batches of which each names an instance once, in order: one statement writes a row once."""
    batches: list[list[Judged]] = []
    seen: dict[tuple[str, str], int] = {}
    for one in judged:
        key = (one.alert.rule, one.alert.instance)
        place = seen[key] = seen.get(key, -1) + 1
        if place == len(batches):
            batches.append([])
        batches[place].append(one)
    return batches


def _rule(row: Record) -> Rule:
    fields = dict(row)
    return msgspec.convert({**fields, "policy": msgspec.convert(fields, Policy)}, Rule)


def _alert(row: Record) -> Alert:
    fields = dict(row)
    return msgspec.convert({**fields, "life": msgspec.convert(fields, Life)}, Alert)
