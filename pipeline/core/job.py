"""What a job is, which states it passes through, and how many of them a worker takes at once.

Owns: the row that a claim hands out, the outcome that a run reports, the table of legal transitions. Knows no
database, no clock and no task: what a job does to the outside goes through its host, the worker.
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from pipeline.core.workflow import Results
from pipeline.errors import TaskError

T = TypeVar("T")
Level = Literal["debug", "info", "warning", "error"]
State = Literal["blocked", "delayed", "ready", "running", "finished", "failed", "cancelled", "expired"]
Step = Literal[
    "unblock",
    "promote",
    "claim",
    "finish",
    "retry",
    "snooze",
    "fail",
    "cancel",
    "expire",
    "release",
    "rescue",
    "redrive",
]  # fmt: skip

TRANSITIONS: dict[tuple[State, Step], State] = {
    ("blocked", "unblock"): "ready",  # the last that it waits for has ended; `delayed` where its time has not come
    ("blocked", "cancel"): "cancelled",
    ("blocked", "expire"): "expired",
    ("delayed", "promote"): "ready",
    ("ready", "claim"): "running",
    ("running", "finish"): "finished",
    ("running", "retry"): "delayed",  # attempt + 1
    ("running", "snooze"): "delayed",  # burns no attempt
    ("running", "fail"): "failed",
    ("running", "cancel"): "cancelled",
    ("ready", "cancel"): "cancelled",
    ("delayed", "cancel"): "cancelled",
    ("ready", "expire"): "expired",
    ("delayed", "expire"): "expired",
    ("running", "expire"): "expired",  # by its worker, before it has begun
    ("running", "release"): "ready",  # burns no attempt
    ("running", "rescue"): "ready",  # attempt + 1; without attempts left it is `fail`
    # an operator lets it run: what has ended begins anew, and is `blocked` where it still waits for others
    ("delayed", "redrive"): "ready",
    ("failed", "redrive"): "ready",
    ("cancelled", "redrive"): "ready",
    ("expired", "redrive"): "ready",
}
"""From state and step to the next state; what is not listed cannot happen."""

ENDED: frozenset[State] = frozenset({"finished", "failed", "cancelled", "expired"})

AHEAD_SECONDS = 0.1
MOST_AHEAD = 4_000


class JobHost(Protocol):
    """What a worker does for the jobs that it runs; every write is refused once it has lost their lease."""

    def transaction(self, job: Job) -> AbstractAsyncContextManager[Any]: ...

    async def progress(self, job: Job, done: float, total: float | None, note: str) -> None: ...

    async def save(self, job: Job, value: Any) -> None: ...

    async def saved(self, job: Job) -> Any: ...

    async def results(self, job: Job) -> Results: ...

    def log(self, job: Job, message: str, level: Level) -> None: ...

    def wait(self, work: Coroutine[Any, Any, T]) -> T: ...


class Unreadable(dict[str, Any]):
    """In place of arguments that Postgres takes for JSON and nobody here can read. problem: why."""

    def __init__(self, problem: str) -> None:
        super().__init__()
        self.problem = problem


class Job(msgspec.Struct, frozen=True, gc=False):
    """One job as its task sees it. Times are Unix seconds by the server's clock.

    attempt: the number of this run, from 1. timeout: seconds that this run may take, or None. run_at: from
    when it might have run. lease: what entitles this worker to end it. waited: seconds from run_at to the
    claim. key: whose turn it is: jobs of one key share limits, and keys take turns. lost: how many workers
    vanished while they held it. expires_in: seconds from the claim until it must have begun, or None.
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
    key: str = ""
    lost: int = 0
    expires_in: float | None = None
    workflow: int | None = None
    host: JobHost | None = None

    @property
    def last_attempt(self) -> bool:
        """Whether the job has failed for good when this run does."""
        return self.attempt >= self.max_attempts

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """A connection in a transaction that ends the job too: its effects happen exactly once.

        The commit finishes the job, without a result. Raises LeaseLost, and rolls back, when the job was
        cancelled or given to another worker meanwhile.
        """
        return self._host().transaction(self)

    async def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far the run is; written at most once a second. Raises LeaseLost."""
        await self._host().progress(self, done, total, note)

    async def save(self, value: Any) -> None:
        """Keep a value that the next attempt can go on from; JSON. Raises LeaseLost."""
        await self._host().save(self, value)

    async def saved(self) -> Any:
        """What an earlier attempt has saved last, or None."""
        return await self._host().saved(self)

    async def results(self) -> Results:
        """The results of the jobs that this one has waited for, by their names in the workflow.

        Where it runs although some did not finish, `.failed` holds the ids of these by name.
        """
        return await self._host().results(self)

    def log(self, message: str, level: Level = "info") -> None:
        """Add a line to the job's own log; from any thread."""
        self._host().log(self, message, level)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the worker from a plain function in a thread, and wait: job.wait(job.save(7))."""
        return self._host().wait(work)

    def _host(self) -> JobHost:
        if self.host is None:
            raise TaskError(
                f"job {self.id} has no worker to talk to here",
                hint="In a task that runs in a process of its own, return what is to be kept instead.",
            )
        return self.host


class Outcome(msgspec.Struct, gc=False):
    """How one run ended, as the worker reports it.

    step: `release` gives the job back as if it had never been claimed; `ended` says that there is nothing to
    write, because the job ended otherwise: in its own transaction, or cancelled. result: JSON text or None.
    error: what a person should read, or None. delay: seconds until a retry, or of a snooze. began: when the
    run began, on the worker's monotonic clock, or None when it never did. ms: how long it took.
    """

    job: Job
    step: Literal["finish", "retry", "snooze", "fail", "cancel", "expire", "release", "ended"]
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
