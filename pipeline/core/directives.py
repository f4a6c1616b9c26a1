"""What a task may raise to say how its run ends.

Owns: the four directives. Knows nothing of who obeys them.

They are exceptions, so that they end a task from any depth; `except Exception` in a task catches them too.
"""

from __future__ import annotations

from datetime import timedelta

from pipeline.core.retry import seconds_of


class Directive(Exception):
    """How a run is to end. reason: one sentence for whoever looks at the job."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = str(reason)


class Retry(Directive):
    """Run again later; counts as an attempt that failed.

    after: seconds or a timedelta, exact, without jitter; None waits as the task's backoff says. Raises
    ValueError for a time that cannot be meant.
    """

    def __init__(self, after: float | timedelta | None = None, reason: str = "") -> None:
        super().__init__(reason)
        self.after = None if after is None else seconds_of(after, "Retry(after)")


class Snooze(Directive):
    """Run again after `seconds` (or a timedelta); burns no attempt. Raises ValueError as `Retry`."""

    def __init__(self, seconds: float | timedelta, reason: str = "") -> None:
        super().__init__(reason)
        self.seconds = seconds_of(seconds, "Snooze(seconds)")


class Cancel(Directive):
    """The job is no longer wanted: it ends as cancelled."""


class Discard(Directive):
    """The job cannot succeed: it fails for good, though attempts are left."""
