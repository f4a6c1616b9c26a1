"""Why a channel has not been told of an alert, for people to read.

Owns: those words. Must not know where the facts come from.
"""

from __future__ import annotations

import msgspec


class Telling(msgspec.Struct, frozen=True, kw_only=True):
    """How one alert stands with one channel. told_at: Unix seconds; None, it was not told of this episode. passed:
    the channel is not told of alerts like this. attempts: of the notification that is being sent for its rule;
    None, there is none. problem: why the last attempt failed.
    """

    channel: str
    kind: str
    told_at: float | None = None
    passed: bool = False
    attempts: int | None = None
    problem: str | None = None


def why_untold(telling: Telling, *, state: str, acknowledged: bool, held: str) -> str:
    """Why the channel was not told that it fires; "" when it was, or when there is nothing to tell."""
    if telling.told_at is not None or state == "resolved":
        return ""
    if state == "pending":
        return "it is pending, which is not told"
    if telling.passed:
        return "the channel is not told of alerts like this"
    if acknowledged:
        return "it is acknowledged"
    if held:
        return f"held back by {held}"
    problem = f": {telling.problem}" if telling.problem else ""
    if telling.attempts:
        return f"being sent, attempt {telling.attempts}{problem}"
    return f"waits for its turn{problem}"
