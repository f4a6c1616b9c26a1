"""One round of telling one channel: from what is untold to notifications.

Owns: how groups, routes, holds and tokens come together. Must not know where the look comes from or how the plan
is carried out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from pipeline.core.alert_flush import Flush, Pace, Told, flush, share_out, tokens_after
from pipeline.core.alert_held import Holds
from pipeline.core.alert_match import matches
from pipeline.core.alert_rule import Alert

SELF_RULE = "pgreflex delivery failed"  # raised by ourselves, with the label `channel`


class Route(msgspec.Struct, frozen=True):
    """Which alerts a channel is told of: those that match one of these sets; () means all."""

    channel: str
    matchers: tuple[dict[str, str], ...] = ()

    def takes(self, alert: Alert) -> bool:
        """Whether the channel is told of this alert; never that it cannot be told anything itself."""
        if alert.rule == SELF_RULE and alert.labels.get("channel") == self.channel:
            return False
        return not self.matchers or any(matches(one, alert) for one in self.matchers)


def sort_out(route: Route, holds: Holds, alert: Alert) -> Literal["tell", "hold", "pass"]:
    """Whether a channel is told of an alert that fires: now, not as long as something holds it back, or never."""
    if not route.takes(alert):
        return "pass"
    return "hold" if holds.why(alert) else "tell"


class Look(msgspec.Struct, frozen=True):
    """What there is for a channel, at one moment. untold, again: what fires and may be told, that was not told of
    this episode, or long ago. over: told, and no longer firing. told_at: when each group was told last.

    Groups that are being told now are left out by whoever looks.
    """

    now: float
    tokens: float
    refilled_at: float
    untold: Sequence[Alert]
    over: Sequence[Told]
    again: Sequence[Alert]
    told_at: Mapping[str, float | None]


class Plan(msgspec.Struct, frozen=True):
    """notifications: each of one group or more. tokens: left."""

    notifications: list[tuple[Flush, ...]]
    tokens: float


def plan_round(look: Look, pace: Pace) -> Plan:
    """Decide what the channel is told now. A group is a rule."""
    new: dict[str, list[Alert]] = {}
    over: dict[str, list[Told]] = {}
    due: dict[str, list[Alert]] = {}
    for alert in look.untold:
        new.setdefault(alert.rule, []).append(alert)
    for one in look.over:
        over.setdefault(one.key[1], []).append(one)
    for alert in look.again:
        due.setdefault(alert.rule, []).append(alert)
    flushes = [
        flush(
            group,
            new=new.get(group, ()),
            over=over.get(group, ()),
            due=due.get(group, ()),
            now=look.now,
            told_at=look.told_at.get(group),
            pace=pace,
        )
        for group in sorted({*new, *over, *due})
    ]
    tokens = tokens_after(look.tokens, look.now - look.refilled_at, pace)
    notifications = share_out([one for one in flushes if one is not None], tokens)
    return Plan(notifications, tokens - len(notifications))
