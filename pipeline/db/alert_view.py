"""Alerts as people and programs look at them: what is alive, what happened, rules and how they fare.

Owns: the answers' shapes, and what a name on a command line or in an address means. Knows neither who looks nor
how it is shown, and changes nothing.

Moments are Unix seconds by the server's clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec

from pipeline.db.alert_rows import labels_of
from pipeline.db.connection import Database, Record
from pipeline.errors import QueryFailed, UsageError

T = TypeVar("T")
STATES = ("firing", "pending", "resolved")
SEVERITIES = ("critical", "warning", "info")
MOST = 1_000
SHOWN_SECONDS = 30 * 86_400.0
REFUSED = "22"  # the class of SQLSTATEs that say that a value cannot be meant


class AlertRow(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that pends or fires, or was resolved within 15 minutes. kind: `metric`, a rule judged it, or
    `raised`, by SQL. since: when it came into its state; seconds: how long that is ago. bad, good, silent: such
    windows in succession; need bad ones make it fire, keep_firing good ones resolve it. unit: of value and
    threshold. nodata: it fires, and nothing is heard of it.
    """

    kind: str
    rule: str
    instance: str
    labels: dict[str, str]
    state: str
    severity: str
    message: str
    value: float | None
    threshold: float | None
    comparison: str | None
    unit: str | None
    runbook: str | None
    nodata: bool
    since: float
    seconds: float
    active_at: float | None
    fired_at: float | None
    resolved_at: float | None
    bad: int
    good: int
    silent: int
    need: int | None
    keep_firing: int | None
    episode: int


class ChangeRow(msgspec.Struct, frozen=True, kw_only=True):
    """A change of state. reason: what was measured, or who or what did it."""

    id: int
    at: float
    kind: str
    rule: str
    instance: str
    labels: dict[str, str]
    episode: int
    before: str
    after: str
    value: float | None
    message: str
    reason: str


class RuleRow(msgspec.Struct, frozen=True, kw_only=True):
    """A rule with all its columns, and how it fares. health: ok, error (problem says why), new (not judged yet) or
    off. judged_until: the end of the last window that was judged; judged_at: when that was; took_ms: how long.
    instances: how many the last window had; firing, pending: how many are. over_seconds: its windows.
    version: another after each change.
    """

    name: str
    version: str
    origin: str
    health: str
    problem: str | None
    enabled: bool
    severity: str
    metric: str
    unit: str | None
    series: str | None
    sources: list[str] | None
    labels: dict[str, str]
    query: str | None
    over_seconds: int
    comparison: str
    threshold: float | None
    clear_threshold: float | None
    need: int
    keep_firing: int
    hold_max: int
    min_samples: int
    max_instances: int
    message: str
    runbook: str | None
    instances: int | None
    firing: int
    pending: int
    judged_until: float | None
    judged_at: float | None
    took_ms: float | None


class Shown(msgspec.Struct, kw_only=True):
    """Everything about one rule or raised alert, or one instance of it. rule: None for what SQL raised."""

    name: str
    instance: str | None
    rule: RuleRow | None
    alerts: list[AlertRow]
    history: list[ChangeRow]


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
        return [_row(row, AlertRow, seconds=max(row["now"] - row["since"], 0.0)) for row in rows]

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
        return Shown(
            name=rule,
            instance=instance,
            rule=await self.rule(rule),
            alerts=await self.alerts(rule=rule, instance=instance),
            history=await self.history(SHOWN_SECONDS, rule=rule, instance=instance, limit=changes),
        )

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


def _row(row: Record, kind: type[T], **more: Any) -> T:
    return msgspec.convert({**row, "labels": labels_of(row["labels"]), **more}, kind)


def change_of(row: Record) -> ChangeRow:
    """A change of state as it was read."""
    return _row(row, ChangeRow)
