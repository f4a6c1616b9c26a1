"""Alerts in Postgres: the inbox of what SQL raised, and instances that nobody speaks for any more.

Owns: the table alert_inbox. Must not know the state machine's rules (core decides), how rules are judged
(pipeline/db/alert_judge.py) or who is told.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pipeline.core.alert import NEVER
from pipeline.core.alert_metric import instance_name
from pipeline.core.alert_rule import Alert, Judged, end, signal
from pipeline.core.status import AlertCount, AlertingStatus, ChannelStatus
from pipeline.core.window import series_name
from pipeline.db.alert_rows import alert_of, labels_of, save
from pipeline.db.alert_shapes import AlertRow
from pipeline.db.alert_view import AlertViews
from pipeline.db.connection import Connection, Database, Record, translated
from pipeline.db.statements import statement

MOST_SHOWN = 500
INBOX_BATCH = 10_000  # messages in one transaction: a tenth of a second


class AlertStore:
    """Takes in what SQL raised, and shows what is alive."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._views = AlertViews(database)

    async def end_orphans(self) -> list[Judged]:
        """Resolve the instances whose rule was deleted or disabled."""
        async with self._database.transaction() as connection:
            with translated():
                rows = await connection.fetch(statement("alerts/orphans"))
                if not rows:
                    return []
                now = await connection.fetchval(statement("latency/clock"))
                judged = [end(alert_of(row), now, "rule_removed") for row in rows]
                await save(connection, judged)
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
        keys = [_key(message) for message in messages]
        wanted = list(dict.fromkeys(keys))
        rows = await connection.fetch(
            statement("alerts/raised"), [name for name, _ in wanted], [instance for _, instance in wanted]
        )
        found = {(row["rule"], row["instance"]): alert_of(row) for row in rows}
        alerts = dict(found)
        judged = []
        for key, message in zip(keys, messages, strict=True):
            held = alerts.get(key) or Alert("raised", *key, NEVER, message["severity"], message["message"])
            if message["raised"]:
                held = msgspec.structs.replace(
                    held,
                    severity=message["severity"],
                    message=message["message"],
                    labels=labels_of(message["labels"]),
                )
            one = signal(held, raised=message["raised"], at=message["at"], episode=message["id"])
            alerts[key] = one.alert
            judged.append(one)
        # what is raised once more, and says nothing new, needs no writing: most of a storm
        news = {(one.alert.rule, one.alert.instance) for one in judged if one.before != one.alert.life.state}
        news |= {key for key, alert in alerts.items() if alert != found.get(key)}
        await save(connection, [one for one in judged if (one.alert.rule, one.alert.instance) in news])
        return judged

    async def current(self) -> list[AlertRow]:
        """The instances that are pending, firing, or resolved within 15 minutes; at most 500."""
        return await self._views.alerts(limit=MOST_SHOWN)

    async def figures(self) -> AlertingStatus:
        """Alerting as a whole."""
        row = await self._database.fetchrow("alert_view/figures")
        if row is None:
            return AlertingStatus()
        return AlertingStatus(
            msgspec.json.decode(row["counts"], type=tuple[AlertCount, ...]),
            row["rule_problems"],
            msgspec.json.decode(row["channels"], type=tuple[ChannelStatus, ...]),
        )

    async def prune(self) -> None:
        """Delete what nobody needs any more."""
        await self._database.execute("alerts/prune")


def _key(message: Record) -> tuple[str, str]:
    instance = message["instance"]  # a message from before an upgrade has its name already
    text = series_name("", labels_of(message["labels"])) if instance is None else instance
    return message["name"], instance_name(text)
