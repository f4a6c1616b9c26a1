"""What a channel has to be told now: the decision of one group at one moment.

Owns: when a group is told, of whom, and how many notifications a channel may take. Must not know how anything is
sent or where it is noted. Moments are Unix seconds.

Theory of operation
-------------------
Telling follows states, not events: what fires now is compared with what the channel was told. So nothing depends
on anybody having seen a change, a flapping alert is told anew each time, and an outage of the receiver ends with
one message that says how things are.

    fires, and was not told of this episode      tell: new         unless it is held back
    was told that it fires, and does no longer   tell: resolved    held back or not: who was told has to know
    fires, was told, and that is long ago        tell: repeat      unless it is held back or acknowledged
    fired and ended before it was told           say nothing

Held back means silenced, inhibited, in a maintenance window or acknowledged. It never changes the state, and
when it ends while the alert still fires, the alert is untold and is told then. A group is told at once the first
time, and again no sooner than `interval` after the last time, so that a wave becomes two messages and not a
hundred; but that all of it is over is told at once.

Tokens bound how many notifications a channel gets: `burst` at once, one more every `every` seconds. When there
are fewer tokens than groups to tell, the last token takes all groups that are left, as one digest; with none,
all wait. Nothing is dropped, since what is not told stays untold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from pipeline.core.alert_rule import Alert

Reason = Literal["new", "resolved", "repeat"]
Key = tuple[str, str, str]
"""Kind, rule and instance."""


class Pace(msgspec.Struct, frozen=True):
    """How often a channel is told. Seconds, but for burst."""

    interval: float = 30.0
    repeat: float = 4 * 3_600.0
    burst: int = 20
    every: float = 6.0


class Told(msgspec.Struct, frozen=True):
    """That a channel was told that an instance fires, in this episode, with what is known of it now."""

    key: Key
    episode: int
    at: float
    severity: str = "warning"
    message: str = ""
    labels: dict[str, str] = {}


class Flush(msgspec.Struct, frozen=True):
    """What a group is told. resolved: what was told before, and is over."""

    group: str
    reason: Reason
    firing: tuple[Alert, ...]
    resolved: tuple[Told, ...]


def key_of(alert: Alert) -> Key:
    return alert.kind, alert.rule, alert.instance


def rests(told_at: float | None, now: float, pace: Pace) -> bool:
    """Whether a group that was told then has to wait; a clock that was set back keeps none waiting."""
    return told_at is not None and told_at <= now < told_at + pace.interval


def flush(
    group: str,
    *,
    new: Sequence[Alert],
    over: Sequence[Told],
    due: Sequence[Alert],
    now: float,
    told_at: float | None,
    pace: Pace = Pace(),  # noqa: B008  # frozen
) -> Flush | None:
    """What to tell of one group, or None.

    new: what fires, is not held back and was not told. over: what was told that it fires, and does no longer;
    within `interval` of the last time only when nothing of the group fires that was told. due: what fires, is
    not held back and was told longer ago than `repeat`. told_at: when the group was told last.
    """
    if new or over:
        if new and rests(told_at, now, pace):
            return None
        return Flush(group, "new" if new else "resolved", tuple(new), tuple(over))
    return Flush(group, "repeat", tuple(due), ()) if due else None


def tokens_after(tokens: float, elapsed: float, pace: Pace) -> float:
    """How many tokens there are after this many seconds; a clock that was set back takes none."""
    return min(float(pace.burst), tokens + max(elapsed, 0.0) / pace.every)


def share_out(flushes: Sequence[Flush], tokens: float) -> list[tuple[Flush, ...]]:
    """Which flushes make one notification each, so that there are no more of them than whole tokens.

    What only says that something is over comes first, then what is critical. The rest goes together, as a digest.
    """
    room = int(tokens)
    if not room:
        return []
    ordered = sorted(flushes, key=_rank)
    if len(ordered) <= room:
        return [(one,) for one in ordered]
    return [*((one,) for one in ordered[: room - 1]), tuple(ordered[room - 1 :])]


def _rank(one: Flush) -> tuple[int, str]:
    if one.reason == "resolved":
        return 0, one.group
    if any(alert.severity == "critical" for alert in one.firing):
        return 1, one.group
    return 2 + (one.reason == "repeat"), one.group
