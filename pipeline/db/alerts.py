"""Alerts in Postgres: the inbox of what SQL raised, instances that nobody speaks for any more, what is told.

Owns: the tables alert_inbox, alert_sink and alert_delivery. Must not know the state machine's rules (core
decides), how rules are judged (pipeline/db/alert_judge.py) or how anything is sent.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pipeline.core.alert import NEVER
from pipeline.core.alert_notice import Delivery, Notice
from pipeline.core.alert_rule import Alert, Judged, end, signal
from pipeline.core.window import series_name
from pipeline.db.alert_rows import alert_of, labels_of, save
from pipeline.db.connection import Connection, Database, Record, translated
from pipeline.db.statements import statement

INBOX_BATCH = 5_000  # messages in one transaction: a tenth of a second
LEASE_SECONDS = 60.0  # for CLAIM_BATCH attempts of ten seconds each
CLAIM_BATCH = 5


class AlertStore:
    """Takes in what SQL raised, and hands out what has to be told."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        alerts = {(row["rule"], row["instance"]): alert_of(row) for row in rows}
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
        await save(connection, judged)
        return judged

    async def current(self) -> list[Alert]:
        """The instances that are pending, firing, or resolved within 15 minutes; at most 500."""
        return [alert_of(row) for row in await self._database.fetch("alerts/current")]

    async def register_sinks(self, names: Sequence[str]) -> None:
        """From now on these sinks are told."""
        await self._database.execute("alerts/register_sinks", list(names))

    async def claim(self, sink: str) -> list[Delivery]:
        """What the sink has to be told now, in order; nobody else gets it within LEASE_SECONDS."""
        rows = await self._database.fetch("alerts/claim", sink, LEASE_SECONDS, CLAIM_BATCH)
        rows.sort(key=lambda row: row["place"])
        return [
            Delivery(
                msgspec.convert({**row, "labels": labels_of(row["labels"])}, Notice),
                row["attempts"],
            )
            for row in rows
        ]

    async def delivered(self, notice: str, sink: str) -> None:
        """Note that the sink accepted the notice."""
        await self._database.execute("alerts/delivered", notice, sink)

    async def not_delivered(self, notice: str, sink: str, *, pause: float, problem: str) -> None:
        """Note why it did not; it is handed out again after `pause` seconds."""
        await self._database.execute("alerts/not_delivered", notice, sink, pause, problem[:500])

    async def prune(self) -> None:
        """Delete what nobody needs any more."""
        await self._database.execute("alerts/prune")


def _key(message: Record) -> tuple[str, str]:
    instance = message["instance"]  # a message from before an upgrade has its name already
    return message["name"], series_name("", labels_of(message["labels"])) if instance is None else instance
