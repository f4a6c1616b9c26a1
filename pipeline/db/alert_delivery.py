"""Telling, in Postgres: rounds, notifications, what each channel was told.

Owns: the tables alert_channel, alert_group, alert_told and alert_notification. Must not know how anything is sent,
nor when.

A round reads what is untold and writes notifications, with the jobs that send them, in one transaction under the
channel's row: of two processes at it, one finds nothing to do. What was told is noted by the job that sent it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from pipeline.core.alert_flush import Pace, Told, key_of, rests
from pipeline.core.alert_message import Notification, members, notification
from pipeline.core.alert_round import Look, Plan, Route, plan_round, sort_out
from pipeline.core.alert_rule import Alert
from pipeline.db.alert_holds import holds_of
from pipeline.db.alert_rows import alert_of, labels_of
from pipeline.db.connection import Connection, Database, Record, translated
from pipeline.db.statements import statement

MOST = 10_000  # instances that one round tells; the rest comes with the next
PAGE = 1_000


class ChannelRow(msgspec.Struct, frozen=True):
    """A channel as the database knows it. definition: changes when it is told of other alerts."""

    name: str
    kind: str
    definition: str


class Outgoing(msgspec.Struct, frozen=True):
    """A notification that is to be sent now. age: seconds since it was made."""

    notification: Notification
    channel: str
    attempts: int
    age: float


class DeliveryStore:
    """Makes notifications, and notes what became of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, channels: Sequence[ChannelRow], pace: Pace) -> None:
        """From now on these channels are told."""
        await self._database.execute(
            "delivery/register",
            [one.name for one in channels],
            [one.kind for one in channels],
            [one.definition for one in channels],
            float(pace.burst),
        )

    async def round(self, route: Route, pace: Pace) -> int:
        """Begin to tell a channel what it has to be told now; returns how many notifications were made."""
        async with self._database.transaction() as connection:
            with translated():
                row = await connection.fetchrow(statement("delivery/lock"), route.channel)
                if row is None:
                    return 0
                await connection.fetch(statement("delivery/revive"), route.channel)
                look = await self._look(connection, route, pace, row)
                plan = plan_round(look, pace)
                await self._carry_out(connection, route.channel, plan, now=look.now, refilled_at=look.refilled_at)
                return len(plan.notifications)

    async def waits(self, id_: str) -> bool:
        """Whether there still is a notification to be sent; those of a channel that is forgotten go with it."""
        return await self._database.fetchval("delivery/waits", id_) is not None

    async def take(self, id_: str) -> Outgoing | None:
        """A notification, to be sent now; None when it was told already. Counts the attempt."""
        row = await self._database.fetchrow("delivery/take", id_)
        if row is None:
            return None
        body = msgspec.json.decode(row["body"], type=Notification)
        return Outgoing(msgspec.structs.replace(body, id=row["id"]), row["channel"], row["attempts"], row["age"])

    async def end(self, id_: str, *, told: bool, problem: str = "") -> None:
        """Note that a notification was accepted, or is given up; the channel's own alert ends or begins."""
        await self._database.execute("delivery/told", id_, "told" if told else "failed", problem[:500])

    async def problem(self, id_: str, problem: str) -> None:
        """Note why an attempt failed."""
        await self._database.execute("delivery/problem", id_, problem[:500])

    async def notify(self, channel: str, payload: str) -> None:
        """NOTIFY on a channel of the database."""
        await self._database.execute("delivery/notify", channel, payload)

    async def prune(self) -> None:
        """Forget what nobody needs any more."""
        await self._database.execute("delivery/prune")

    async def _look(self, connection: Connection, route: Route, pace: Pace, row: Record) -> Look:
        channel, now = route.channel, row["now"]
        groups = await connection.fetch(statement("delivery/groups"), channel)
        told_at = {group["name"]: group["told_at"] for group in groups}
        open_ = [group["name"] for group in groups if group["open"]]
        lately = [name for name, at in told_at.items() if rests(at, now, pace)]
        waiting = open_ + lately
        holds = await holds_of(lambda name, *args: connection.fetch(statement(name), *args), now)
        untold: list[Alert] = []
        passed: list[Alert] = []
        async for one in _pages(connection, "delivery/untold", channel, waiting):
            alert = alert_of(one)
            fate = sort_out(route, holds, alert)
            if fate != "hold":
                (untold if fate == "tell" else passed).append(alert)
            if len(untold) >= MOST:
                break
        again: list[Alert] = []
        async for one in _pages(connection, "delivery/again", channel, open_, pace.repeat):
            alert = alert_of(one)
            if sort_out(route, holds, alert) == "tell":
                again.append(alert)
            if len(again) >= MOST:
                break
        rows = await connection.fetch(statement("delivery/over"), channel, open_, lately, MOST)
        await self._pass(connection, channel, passed)
        # one that fires again has not ended for the channel, unless it is not told of the new episode
        fires, ended = {key_of(alert) for alert in untold}, {key_of(alert) for alert in passed}
        found = [(_told(one), one["again"]) for one in rows]
        over = [one for one, more in found if one.key not in fires and (not more or one.key in ended)]
        return Look(now, row["tokens"], row["refilled_at"], untold, over, again, told_at)

    async def _pass(self, connection: Connection, channel: str, passed: Sequence[Alert]) -> None:
        if passed:
            await connection.execute(
                statement("delivery/pass"),
                channel,
                [alert.kind for alert in passed],
                [alert.rule for alert in passed],
                [alert.instance for alert in passed],
                [alert.life.episode for alert in passed],
                [alert.severity for alert in passed],
            )

    async def _carry_out(
        self, connection: Connection, channel: str, plan: Plan, *, now: float, refilled_at: float
    ) -> None:
        if not plan.notifications:
            if refilled_at > now:  # the clock was set back: until it had caught up no token would come
                await connection.execute(statement("delivery/spend"), channel, plan.tokens)
            return
        names = [one.group for flushes in plan.notifications for one in flushes]
        found = await connection.fetch(statement("delivery/runbooks"), names)
        runbooks = {row["name"]: row["runbook"] for row in found}
        for flushes in plan.notifications:
            body = notification(flushes, at=now, runbooks=runbooks)
            await connection.fetchval(
                statement("delivery/open"),
                channel,
                [one.group for one in flushes],
                body.reason,
                msgspec.json.encode(body).decode(),
                msgspec.json.encode(members(flushes)).decode(),
            )
        await connection.execute(statement("delivery/spend"), channel, plan.tokens)


async def _pages(connection: Connection, name: str, *args: object) -> AsyncIterator[Record]:
    """All rows, a page at a time, in the order of kind, rule and instance."""
    after = ("", "", "")
    while True:
        rows = await connection.fetch(statement(name), *args, *after, PAGE)
        for row in rows:
            yield row
        if len(rows) < PAGE:
            return
        after = (rows[-1]["kind"], rows[-1]["rule"], rows[-1]["instance"])


def _told(row: Record) -> Told:
    key = (row["kind"], row["rule"], row["instance"])
    return Told(key, row["episode"], row["told_at"], row["severity"], row["message"], labels_of(row["labels"]))
