"""What a notification says.

Owns: its form as JSON, and its words. Must not know who gets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from pipeline.core.alert_flush import Flush, Told, key_of
from pipeline.core.alert_rule import Alert

MOST_ALERTS = 50  # that a notification lists, and rules; of the others it has the number
MOST_TEXT = 3_000  # characters of the text, and as many of the links of runbooks; chats cut longer ones
MOST_LINE = 1_000  # and of one alert in it


class Line(msgspec.Struct, frozen=True):
    """One instance in a notification. at: when it began to fire or was told last, in Unix seconds."""

    status: Literal["firing", "resolved"]
    rule: str
    instance: str
    severity: str
    message: str
    episode: int
    at: float
    value: float | None = None
    threshold: float | None = None
    labels: dict[str, str] = {}


class Notification(msgspec.Struct, frozen=True):
    """The body of a webhook, field by field. id: the same on every attempt. at: Unix seconds.

    status: firing if anything in it fires, else resolved. firing, resolved: how many there are, of which `alerts`
    lists MOST_ALERTS, the gravest first. severity: the gravest of them. groups: the rules, MOST_ALERTS of them;
    more_groups: how many more. runbooks: by rule.
    """

    id: str
    at: float
    reason: Literal["new", "resolved", "repeat", "test"]
    status: Literal["firing", "resolved"]
    severity: str
    groups: tuple[str, ...]
    firing: int
    resolved: int
    alerts: tuple[Line, ...]
    runbooks: dict[str, str] = {}
    more_groups: int = 0

    @property
    def title(self) -> str:
        """One line: how grave, what, how many."""
        rules = len(self.groups) + self.more_groups
        what = self.groups[0] if rules == 1 else f"{rules:,} rules"
        if self.reason == "test":
            return f"[test] {what}"
        count = self.firing if self.status == "firing" else self.resolved
        head = self.severity if self.status == "firing" else "resolved"
        again = ", still firing" if self.reason == "repeat" else ""
        return f"[{head}] {what}" + (f" ({count:,}){again}" if count > 1 or again else "")

    @property
    def text(self) -> str:
        """A line for each alert, and how many are left out."""
        lines = [_words(line, alone=len(self.groups) == 1)[:MOST_LINE] for line in self.alerts]
        kept: list[str] = []
        for line in lines:
            if sum(map(len, kept)) + len(line) > MOST_TEXT:
                break
            kept.append(line)
        left = self.firing + self.resolved - len(kept)
        if left:
            kept.append(f"and {left:,} more")
        room = MOST_TEXT
        for rule, link in sorted(self.runbooks.items()):
            room -= len(rule) + len(link)
            if room >= 0:
                kept.append(f"{rule}: {link}")
        return "\n".join(kept)


_GRAVITY = {"info": 0, "warning": 1, "critical": 2}


def notification(flushes: Sequence[Flush], *, at: float, runbooks: dict[str, str]) -> Notification:
    """One notification for these groups; without an id, which the database gives."""
    firing = sorted(
        (alert for one in flushes for alert in one.firing), key=lambda alert: -_gravity(alert.severity)
    )
    resolved = [told for one in flushes for told in one.resolved]
    severities = [alert.severity for alert in firing] or [told.severity for told in resolved]
    groups = tuple(one.group for one in flushes)[:MOST_ALERTS]
    return Notification(
        id="",
        at=at,
        reason=flushes[0].reason if len({one.reason for one in flushes}) == 1 else "new",
        status="firing" if firing else "resolved",
        severity=max(severities, key=_gravity),
        groups=groups,
        firing=len(firing),
        resolved=len(resolved),
        alerts=tuple([*map(_fires, firing[:MOST_ALERTS]), *map(_ended, resolved[:MOST_ALERTS])][:MOST_ALERTS]),
        runbooks={name: runbooks[name] for name in groups if name in runbooks},
        more_groups=len(flushes) - len(groups),
    )


def members(flushes: Sequence[Flush]) -> list[dict[str, object]]:
    """What the channel will have been told once it has accepted the notification."""
    said: list[dict[str, object]] = []
    for one in flushes:
        said += [_member(key_of(alert), alert.life.episode, "firing", alert.severity) for alert in one.firing]
        said += [_member(told.key, told.episode, "resolved", told.severity) for told in one.resolved]
    return said


def _member(key: tuple[str, str, str], episode: int, change: str, severity: str) -> dict[str, object]:
    kind, rule, instance = key
    return {
        "kind": kind,
        "rule": rule,
        "instance": instance,
        "episode": episode,
        "change": change,
        "severity": severity,
    }


def _gravity(severity: str) -> int:
    return _GRAVITY.get(severity, 1)


def _fires(alert: Alert) -> Line:
    return Line(
        "firing",
        alert.rule,
        alert.instance,
        alert.severity,
        alert.message,
        alert.life.episode,
        alert.life.fired_at or 0.0,
        alert.value,
        alert.threshold,
        alert.labels,
    )


def _ended(told: Told) -> Line:
    _kind, rule, instance = told.key
    message = told.message or "resolved"
    return Line("resolved", rule, instance, told.severity, message, told.episode, told.at, labels=told.labels)


def _words(line: Line, *, alone: bool) -> str:
    name = line.instance if alone else " ".join(filter(None, (line.rule, line.instance)))
    if line.status == "resolved":
        return f"resolved: {name or line.rule}"
    return f"{name}: {line.message}" if name and name not in line.message else line.message
