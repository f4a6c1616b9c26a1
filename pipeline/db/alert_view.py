"""Alerts as people and programs look at them: what is alive, what happened, rules and how they fare.

Owns: the questions, and what a name on a command line or in an address means. Knows neither who looks nor
how it is shown, and changes nothing.

Moments are Unix seconds by the server's clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec

from pipeline.core.alert_match import matches
from pipeline.core.alert_untold import Telling
from pipeline.db.alert_holds import holds_of
from pipeline.db.alert_rows import alert_of, labels_of
from pipeline.db.alert_shapes import (
    Ack,
    AlertRow,
    ChangeRow,
    ChannelRow,
    NoteRow,
    NotificationRow,
    RuleRow,
    Shown,
    SilenceRow,
)
from pipeline.db.connection import Database, Record
from pipeline.errors import QueryFailed, UsageError

T = TypeVar("T")
STATES = ("firing", "pending", "resolved")
SEVERITIES = ("critical", "warning", "info")
MOST = 1_000
SHOWN_SECONDS = 30 * 86_400.0
REFUSED = "22"  # the class of SQLSTATEs that say that a value cannot be meant


class AlertViews:
    """database: open. All methods raise PermissionMissing for a role without rights on the tables."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def alerts(
        self,
        *,
        states: Sequence[str] | None = None,
        severities: Sequence[str] | None = None,
        rule: str | None = None,
        instance: str | None = None,
        limit: int = MOST,
    ) -> list[AlertRow]:
        """The instances that are not inactive, or were resolved lately, the gravest first."""
        rows = await self._db.fetch("alert_view/list", states, severities, rule, instance, limit)
        if not rows:
            return []
        holds = await holds_of(self._db.fetch, rows[0]["now"])
        return [_alert(row, holds.why(alert_of(row)) if row["state"] == "firing" else "") for row in rows]

    async def history(
        self,
        over: float,
        *,
        rule: str | None = None,
        instance: str | None = None,
        before: int | None = None,
        limit: int = 200,
    ) -> list[ChangeRow]:
        """Changes of state in the last `over` seconds, the newest first. before: only those
        before the one of this number, for the next page.
        """
        rows = await self._db.fetch("alert_view/history", over, rule, instance, before, limit)
        return [change_of(row) for row in rows]

    async def rules(self) -> list[RuleRow]:
        """Every rule, by name."""
        return [_row(row, RuleRow) for row in await self._db.fetch("alert_view/rules", None)]

    async def rule(self, name: str) -> RuleRow | None:
        """One rule; None when there is none, which does not mean that no such alert can be raised."""
        row = await self._db.fetchrow("alert_view/rules", name)
        return None if row is None else _row(row, RuleRow)

    async def show(self, rule: str, text: str | None = None, *, changes: int = 15) -> Shown:
        """Everything about a rule or a raised alert, with what happened in 30 days. text: means one instance.

        Raises UsageError, with what is near, where there is nothing of this name.
        """
        await self.known(rule)
        instance = None if text is None else await self.instance(rule, text)
        alerts = await self.alerts(rule=rule, instance=instance)
        return Shown(
            name=rule,
            instance=instance,
            rule=await self.rule(rule),
            alerts=alerts,
            told=await self.told(alerts[0]) if len(alerts) == 1 else [],
            notifications=await self.notifications(SHOWN_SECONDS, rule=rule, instance=instance, limit=changes),
            history=await self.history(SHOWN_SECONDS, rule=rule, instance=instance, limit=changes),
            notes=await self.notes(SHOWN_SECONDS, rule=rule, instance=instance, limit=changes),
        )

    async def told(self, one: AlertRow) -> list[Telling]:
        """How an alert stands with each channel."""
        rows = await self._db.fetch("alert_view/told", one.kind, one.rule, one.instance, one.episode)
        return [msgspec.convert({**row, "passed": bool(row["passed"])}, Telling) for row in rows]

    async def notifications(
        self,
        over: float,
        *,
        channel: str | None = None,
        rule: str | None = None,
        instance: str | None = None,
        limit: int = 200,
    ) -> list[NotificationRow]:
        """What was sent or is being sent, the newest first."""
        rows = await self._db.fetch("alert_view/notifications", over, channel, rule, instance, limit)
        return [msgspec.convert({**row}, NotificationRow) for row in rows]

    async def notification(self, id_: str) -> Record | None:
        """What became of one: state, attempts, problem and seconds."""
        return await self._db.fetchrow("alert_view/notification", id_)

    async def notes(
        self, over: float, *, rule: str | None = None, instance: str | None = None, limit: int = 200
    ) -> list[NoteRow]:
        """What people did and said, the newest first."""
        rows = await self._db.fetch("alert_view/notes", over, rule, instance, limit)
        return [msgspec.convert({**row}, NoteRow) for row in rows]

    async def silences(self, *, past: bool = False) -> list[SilenceRow]:
        """Those that hold or will; past: also those that are over."""
        rows = await self._db.fetch("alert_view/silences", past)
        return [msgspec.convert({**row, "matchers": labels_of(row["matchers"])}, SilenceRow) for row in rows]

    async def channels(self) -> list[ChannelRow]:
        """Who is told, and how each fares."""
        return [msgspec.convert({**row}, ChannelRow) for row in await self._db.fetch("alert_view/channels")]

    async def matched(self, matchers: Mapping[str, str]) -> int:
        """How many of the alerts that fire these matchers mean."""
        rows = await self._db.fetch("alert_view/list", ["firing"], None, None, None, MOST)
        return sum(matches(matchers, alert_of(row)) for row in rows)

    async def names(self) -> list[str]:
        """Of all rules, and of all raised alerts that are known."""
        return [row["name"] for row in await self._db.fetch("alert_view/names")]

    async def known(self, rule: str) -> None:
        """Raises UsageError, with what is near, where neither a rule nor an alert has this name."""
        names = await self.names()
        if rule not in names:
            raise UsageError(f"there is no alert rule {rule[:100]}", hint=near(rule, names))

    async def instance(self, rule: str, text: str) -> str:
        """The instance of a rule that a text means: its whole name, `label=value` pairs with commas between
        them, or a part of the name that no other has. Raises UsageError, with what there is.
        """
        found = {one.instance: one.labels for one in await self.alerts(rule=rule)}
        for event in [] if text in found else await self.history(90 * 86_400.0, rule=rule, limit=MOST):
            found.setdefault(event.instance, event.labels)
        meant = meant_instances(text, found)
        if len(meant) == 1:
            return meant[0]
        if meant:
            raise UsageError(f"{len(meant)} instances of {rule} match {text[:100]}", hint=_some(meant))
        raise UsageError(
            f"{rule} has no instance {text[:100]}",
            hint=_some(list(found)) if any(found) else "It has one instance without a name; leave the name out.",
        )


@contextmanager
def meant() -> Iterator[None]:
    """Turns what the database says of a value into a mistake of the caller's."""
    try:
        yield
    except QueryFailed as error:
        if error.sqlstate.startswith(REFUSED) or error.sqlstate == "P0002":
            raise UsageError(error.message, hint=error.hint or "docs/alerts.md tells what there is.") from error
        raise


def meant_instances(text: str, found: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Which of these instances, with their labels, a text may mean."""
    if text in found:
        return [text]
    pairs = dict(part.split("=", 1) for part in text.split(",")) if all("=" in p for p in text.split(",")) else {}
    wanted = {name.strip(): value.strip().strip('"') for name, value in pairs.items()}
    if wanted and (named := [one for one, labels in found.items() if wanted.items() <= labels.items()]):
        return named
    return [one for one in found if text in one]


def near(name: str, names: Sequence[str]) -> str:
    """What somebody who wrote `name` may have meant."""
    close = get_close_matches(name, names, n=3, cutoff=0.5) or [one for one in names if name and name in one][:3]
    if close:
        return f"Did you mean {' or '.join(close)}? `pgreflex alerts rules list` lists all."
    return "`pgreflex alerts rules list` lists the rules, `pgreflex alerts history` what was raised."


def _some(names: Sequence[str]) -> str:
    told = ", ".join(name or '""' for name in names[:5])
    return f"There is {told}{f' and {len(names) - 5} more' if len(names) > 5 else ''}."


def _alert(row: Record, held: str) -> AlertRow:
    ack = None if row["ack_by"] is None else Ack(row["ack_by"], row["ack_at"], row["ack_note"])
    return _row(row, AlertRow, seconds=max(row["now"] - row["since"], 0.0), acknowledged=ack, held=held)


def _row(row: Record, kind: type[T], **more: Any) -> T:
    return msgspec.convert({**row, "labels": labels_of(row["labels"]), **more}, kind)


def change_of(row: Record) -> ChangeRow:
    """A change of state as it was read."""
    return _row(row, ChangeRow)
