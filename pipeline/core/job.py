"""What a job is, which states it passes through, and how many of them a worker takes at once.

Owns: the row that a claim hands out, the outcome that a run reports, the table of legal transitions. Knows no
database, no clock and no task.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

State = Literal["delayed", "ready", "running", "finished", "failed"]
Step = Literal["promote", "claim", "finish", "retry", "fail", "release", "rescue"]

TRANSITIONS: dict[tuple[State, Step], State] = {
    ("delayed", "promote"): "ready",
    ("ready", "claim"): "running",
    ("running", "finish"): "finished",
    ("running", "retry"): "delayed",  # attempt + 1
    ("running", "fail"): "failed",
    ("running", "release"): "ready",  # burns no attempt
    ("running", "rescue"): "ready",  # attempt + 1; without attempts left it is `fail`
}
"""From state and step to the next state; what is not listed cannot happen."""

ENDED: frozenset[State] = frozenset({"finished", "failed"})

AHEAD_SECONDS = 0.1
MOST_AHEAD = 2_000


class Job(msgspec.Struct, frozen=True, gc=False):
    """One job as its task sees it. Times are Unix seconds by the server's clock.

    attempt: the number of this run, from 1. timeout: seconds that this run may take, or None. run_at: from
    when it might have run. lease: what entitles this worker to end it. waited: seconds from run_at to the
    claim.
    """

    id: int
    task: str
    args: dict[str, Any]
    queue: str
    priority: int
    attempt: int
    max_attempts: int
    timeout: float | None
    created_at: float
    run_at: float
    lease: int
    waited: float

    @property
    def last_attempt(self) -> bool:
        """Whether the job has failed for good when this run does."""
        return self.attempt >= self.max_attempts


class Outcome(msgspec.Struct, gc=False):
    """How one run ended, as the worker reports it.

    step: finish, retry, fail or release. result: JSON text or None. error: what a person should read, or
    None. delay: seconds until a retry. began: when the run began, on the worker's monotonic clock, or None
    when it never did. ms: how long it took.
    """

    job: Job
    step: Literal["finish", "retry", "fail", "release"]
    result: str | None = None
    error: str | None = None
    delay: float = 0.0
    began: float | None = None
    ms: float | None = None


def after(state: State, step: Step) -> State:
    """The state that follows. Raises ValueError for a step that cannot be taken in that state."""
    try:
        return TRANSITIONS[state, step]
    except KeyError:
        raise ValueError(f"a job that is {state} cannot {step}") from None


def claim_size(concurrency: int, held: int, per_second: float) -> int:
    """How many more jobs a worker should take now; 0 means: not yet.

    It holds what it can run at once and, beyond that, what it gets through in AHEAD_SECONDS at its present
    pace: with jobs of 10 us that is a large batch for each claim, with jobs of 1 s it is nothing, so that no
    job waits behind a long one here while another worker is free. A claim for a few is put off while half of
    the advance is still there.
    """
    ahead = min(MOST_AHEAD, int(per_second * AHEAD_SECONDS))
    room = concurrency + ahead - held
    return room if room > ahead // 2 else 0
