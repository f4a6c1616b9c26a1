"""The shapes of what is told of alerts: instances, changes, rules, notes, silences, channels, notifications.

Owns: their fields, which are those of --json and of /api/v1/alerts. Knows neither SQL nor who looks.

Moments are Unix seconds by the server's clock.
"""

from __future__ import annotations

import msgspec

from pipeline.core.alert_untold import Telling


class Ack(msgspec.Struct, frozen=True):
    """Somebody is at it."""

    by: str
    at: float
    note: str


class AlertRow(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that pends or fires, or was resolved within 15 minutes. kind: `metric`, a rule judged it, or
    `raised`, by SQL. since: when it came into its state; seconds: how long that is ago. bad, good, silent: such
    windows in succession; need bad ones make it fire, keep_firing good ones resolve it. unit: of value and
    threshold. nodata: it fires, and nothing is heard of it. held: what holds telling back, such as `silence 3`.
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
    acknowledged: Ack | None
    held: str


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


class NoteRow(msgspec.Struct, frozen=True):
    """What somebody did or said. action: note, ack, unack, resolve, silence or unsilence."""

    id: int
    at: float
    rule: str
    instance: str | None
    episode: int | None
    action: str
    by: str
    note: str


class SilenceRow(msgspec.Struct, frozen=True):
    """What is not told, until when and why. active: it holds now."""

    id: int
    matchers: dict[str, str]
    starts_at: float
    ends_at: float
    reason: str
    made_by: str
    ended_by: str | None
    active: bool
    left_seconds: float


class ChannelRow(msgspec.Struct, frozen=True):
    """A channel that daemons were configured with during the last seven days. waiting: notifications that it has
    not accepted yet; failed: within 24 hours, those that are given up. told_at: when it accepted one last.
    """

    channel: str
    kind: str
    waiting: int
    failed: int
    told_at: float | None
    problem: str | None
    seen_at: float


class NotificationRow(msgspec.Struct, frozen=True):
    """What was sent or is being sent. state: open, told or failed. alerts: how many it speaks of."""

    id: str
    channel: str
    at: float
    state: str
    reason: str
    groups: list[str]
    alerts: int
    attempts: int
    ended_at: float | None
    problem: str | None
    job: int | None


class Shown(msgspec.Struct, kw_only=True):
    """Everything about one rule or raised alert, or one instance of it. rule: None for what SQL raised. told: how
    its only instance stands with each channel.
    """

    name: str
    instance: str | None
    rule: RuleRow | None
    alerts: list[AlertRow]
    told: list[Telling]
    notifications: list[NotificationRow]
    history: list[ChangeRow]
    notes: list[NoteRow]
