"""What is told of an alert, and when telling is tried again.

Owns: the notice and the pause after a failure. Must not know who is told, or how.
"""

from __future__ import annotations

import msgspec

from pipeline.core.alert import Change

MAX_PAUSE_SECONDS = 300.0


class Notice(msgspec.Struct, frozen=True):
    """One alert fired, or was resolved. It is the JSON body of a webhook, field by field.

    id: the same on every attempt, so that a receiver can tell a repetition. at: Unix seconds.
    """

    id: str
    change: Change
    rule: str
    instance: str
    severity: str
    message: str
    at: float
    episode: int
    value: float | None = None
    threshold: float | None = None
    labels: dict[str, str] = {}
    runbook: str | None = None


class Delivery(msgspec.Struct, frozen=True):
    """A notice that is to be sent to one sink now. attempts: how often it was tried, this time included."""

    notice: Notice
    attempts: int


def pause(attempts: int, chance: float) -> float:
    """Seconds until the next attempt: 1, 2, 4, ... up to 300, halved at most by `chance` (0 to 1)."""
    longest = min(MAX_PAUSE_SECONDS, 2.0 ** min(attempts - 1, 10))
    return longest * (0.5 + chance / 2)
