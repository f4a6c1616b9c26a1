"""The job queue in Postgres: adding jobs, handing them out, taking their outcomes.

Owns: which statements make one step of a job, and in what order. Knows neither tasks nor when to call it.

The theory is at the head of the migrations that make the tables. What must not be changed lightly: a write that
ends jobs goes through their lease, and a lease is deleted last, in the same transaction.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pipeline.core.job import Job, JobHost, Outcome, Unreadable
from pipeline.core.seal import Sealer
from pipeline.core.status import QueueStatus
from pipeline.db.connection import Connection, Database, Record, translated
from pipeline.db.heartbeat import BEAT_SECONDS, Heartbeat
from pipeline.db.job_producer import JobProducer
from pipeline.db.queue_admin import QueueAdmin
from pipeline.db.statements import statement
from pipeline.registry import Registry

JOB_SETTINGS = {
    # Each statement here has one right plan; statistics of a table that was empty a minute ago mislead.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    # Every step relies on seeing the newest version of a row that it had to wait for.
    "default_transaction_isolation": "read committed",
}
ENDS = {"finish": "finished", "fail": "failed", "cancel": "cancelled", "expire": "expired"}
DEAD_SECONDS = 15.0
SWEEP_SECONDS = 0.05
SEARCH_SECONDS = 60.0


class Claim(msgspec.Struct, frozen=True):
    """What a claim handed out. after: the key whose turn was last. ask_in: seconds after which a claim may get
    jobs that this one could not have, or None."""

    jobs: list[Job]
    after: str
    ask_in: float | None


class QueueSettings(msgspec.Struct, frozen=True):
    """A queue that has or had jobs or settings. state: running, paused or draining. concurrency: over all workers.
    rate: jobs that may begin in any rate_seconds. slots: jobs that one worker runs at once. None: not set."""

    queue: str
    state: str
    concurrency: int | None
    rate: int | None
    rate_seconds: float | None
    slots: int | None
    weight: int


class Sweep(msgspec.Struct, frozen=True):
    """What a sweep found. unsettled: there may be more to find soon. seconds: how long it took."""

    jobs: list[Job]
    unsettled: bool
    seconds: float


class Written(msgspec.Struct, frozen=True):
    """How many outcomes were accepted; those refused belong to leases that were rescued meanwhile."""

    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    retried: int = 0
    released: int = 0
    refused: int = 0


def job_database(dsn: str | None, *, max_size: int = 5) -> Database:
    """A pool, still to be opened, whose sessions are set up for the statements of the queue."""
    return Database(dsn, purpose="jobs", max_size=max_size, settings=JOB_SETTINGS)


class JobStore(JobProducer):
    """The queue. database: open, made by `job_database`. registry, sealer: as of JobProducer.

    Every method raises DatabaseUnavailable, QueryFailed and their kin, never an error of the driver.
    """

    def __init__(
        self, database: Database, *, registry: Registry | None = None, sealer: Sealer | None = None
    ) -> None:
        super().__init__(database, registry=registry, sealer=sealer)
        self._host: JobHost | None = None
        self.when_ended: Callable[[], None] = lambda: None
        """Called when jobs of a workflow may have ended here."""

    @property
    def database(self) -> Database:
        """Where the queue is."""
        return self._db

    def host(self, host: JobHost) -> None:
        """Every job that is handed out from now on talks to this worker."""
        self._host = host

    async def register(self, name: str, queues: Sequence[str]) -> int:
        """A new worker; returns its number."""
        worker: int = await self._db.fetchval("jobs/register", name, list(queues))
        return worker

    async def retire(self, worker: int) -> None:
        """The worker has ended; what it still holds may be rescued at once."""
        await self._db.execute("jobs/retire", worker)

    def heartbeat(
        self,
        worker: int,
        name: str,
        queues: Sequence[str],
        turned: Callable[[], float],
        every: float = BEAT_SECONDS,
        steady_since: float = -math.inf,
    ) -> Heartbeat:
        """The worker's heartbeat, every so many seconds, still to be started; it has a connection of its own.

        steady_since: since when beats could arrive, on the monotonic clock.
        """
        return Heartbeat(self._db.dsn, worker, name, queues, turned, every=every, steady_since=steady_since)

    async def server_up(self) -> float:
        """For how many seconds the server has been up."""
        seconds: float = await self._db.fetchval("jobs/server_up")
        return seconds

    async def claim(
        self, queue: str, limit: int, worker: int, *, free: int | None = None, after: str = ""
    ) -> Claim:
        """Up to `limit` jobs: of the first lane that has any, or where jobs have keys, of each key in turn.

        free: how many could begin at once, for a rate is not spent on more. after: where the turns go on.
        """
        rows = await self._db.fetch("jobs/claim", queue, limit if free is None else free, limit, worker, after)
        if not rows:
            return Claim([], after, None)
        last = rows[-1]
        if last["id"] is None:
            return Claim(_jobs(rows[:-1], self._host), last["key"], last["waited"])
        return Claim(_jobs(rows, self._host), last["key"], None)

    async def adopt(self) -> int:
        """Make the lanes that producers asked for; returns how many are new."""
        made: int = await self._db.fetchval("jobs/adopt")
        return made

    async def sweep(
        self,
        queue: str,
        limit: int,
        worker: int,
        *,
        every: float = SWEEP_SECONDS,
        search_every: float = SEARCH_SECONDS,
    ) -> Sweep:
        """Up to `limit` jobs that became visible below the mark of their lane.

        every: seconds between two sweeps of a lane, by all workers together. search_every: seconds after
        which everything below the mark is searched, settled or not, in case a lease was lost.
        """
        began = time.monotonic()
        lanes = await self._db.fetchrow("jobs/unsettled", queue, every, search_every)
        if lanes is None or not lanes["due"]:
            return Sweep([], bool(lanes and lanes["unsettled"]), time.monotonic() - began)
        rows = await self._db.fetch("jobs/sweep", queue, limit, worker, every, search_every)
        return Sweep(_jobs(rows, self._host), True, time.monotonic() - began)

    async def begin(self, job: Job, worker: int) -> bool:
        """Note that a job which was once lost begins; False when the worker no longer holds it."""
        return await self._db.fetchval("jobs/begin", job.id, job.lease, worker) is not None

    async def write(self, worker: int, outcomes: Sequence[Outcome], freed: Sequence[int] = ()) -> Written:
        """Take outcomes in, all or none. freed: the leases that hold nothing more after this.

        Only what the worker still holds is changed. Writing the same outcomes again, because the answer to
        the first time was lost, changes nothing.
        """
        # In the order of their ids, as whoever cancels jobs locks them; the statements keep to the order given.
        outcomes = sorted(outcomes, key=lambda o: o.job.id)
        ended = [o for o in outcomes if o.step in ENDS]
        retried = [o for o in outcomes if o.step in ("retry", "snooze")]
        # What has ended otherwise is taken off its lease too; should it have been put back since, it runs again.
        released = [o for o in outcomes if o.step in ("release", "ended")]
        written = sum(o.step == "ended" for o in outcomes)
        counts = {"retried": 0, "released": 0}
        async with self._db.acquire() as connection:
            if not retried and not released:
                row = await finish(connection, worker, ended, freed)
            else:
                async with connection.transaction(isolation="read_committed"):
                    if bool(ended) + bool(retried) + bool(released) > 1:
                        jobs = [o.job for o in outcomes]
                        leases = list({job.lease for job in jobs})
                        await connection.execute(statement("jobs/hold"), leases, worker, [job.id for job in jobs])
                    if retried:
                        counts["retried"] = await connection.fetchval(
                            statement("jobs/retry"),
                            [o.job.id for o in retried],
                            [o.job.lease for o in retried],
                            worker,
                            [o.delay for o in retried],
                            [o.error for o in retried],
                            [o.step == "retry" for o in retried],
                        )
                    if released:
                        counts["released"] = await connection.fetchval(
                            statement("jobs/release"),
                            [o.job.id for o in released],
                            [o.job.lease for o in released],
                            worker,
                        )
                    row = await finish(connection, worker, ended, freed)
        if any(outcome.job.workflow is not None for outcome in outcomes):
            self.when_ended()
        counts |= dict(row)
        return Written(**counts, refused=max(0, len(outcomes) - sum(counts.values()) - written))

    async def promote(self, queues: Sequence[str], limit: int = 1_000) -> tuple[int, float | None]:
        """Let delayed jobs run that are due; returns how many, and seconds until the next one is."""
        row = await self._db.fetchrow("jobs/promote", list(queues), limit)
        return (row["promoted"], row["next_in"]) if row else (0, None)

    async def rescue(self, dead_after: float = DEAD_SECONDS, limit: int = 100) -> tuple[int, int]:
        """Take jobs from workers not seen for `dead_after` seconds: how many run again, how many failed."""
        row = await self._db.fetchrow("jobs/rescue", dead_after, limit)
        return (row["again"], row["failed"]) if row else (0, 0)

    async def give_back(self, worker: int, known: Sequence[int], older_than: float) -> int:
        """Return the jobs of leases that the worker has but does not know of; returns how many.

        known: the leases it knows. older_than: seconds; the answer to a younger claim may still be on its
        way.
        """
        count: int = await self._db.fetchval("jobs/give_back", worker, list(known), older_than)
        return count

    async def status(self) -> tuple[QueueStatus, ...]:
        """Every queue that had a job; counted exactly, so it takes time in proportion to the jobs waiting."""
        return tuple(
            QueueStatus(
                queue=one.queue,
                ready=one.ready,
                delayed=one.delayed,
                running=one.running,
                paused=one.state == "paused",
                draining=one.state == "draining",
                oldest_ready_seconds=one.oldest,
                failed_24h=one.failed,
            )
            for one in await QueueAdmin(self._db).all()
        )

    async def queues(self) -> list[QueueSettings]:
        """Every queue that has or had jobs or settings."""
        return [QueueSettings(**dict(row)) for row in await self._db.fetch("jobs/queues")]

    async def maintain_archive(self) -> None:
        """Make the partitions of the days ahead, drop those that are past their time."""
        await self._db.execute("jobs/maintain_archive")


async def finish(connection: Connection, worker: int, ended: Sequence[Outcome], freed: Sequence[int]) -> Record:
    now = time.monotonic()
    with translated():
        [row] = await connection.fetch(
            statement("jobs/finish"),
            [o.job.id for o in ended],
            [o.job.lease for o in ended],
            worker,
            [ENDS[o.step] for o in ended],
            [o.result for o in ended],
            [o.error for o in ended],
            [None if o.began is None else now - o.began for o in ended],
            [o.ms for o in ended],
            list(freed),
        )
    return row


_decoder = msgspec.json.Decoder(dict[str, Any]).decode


def _decode(text: str) -> dict[str, Any]:
    try:
        return _decoder(text)
    except (msgspec.DecodeError, RecursionError) as error:  # a number without end, brackets 3,000 deep
        return Unreadable(str(error))


def _jobs(rows: Sequence[Record], host: JobHost | None) -> list[Job]:
    """In the order of the columns of pipeline.claim and pipeline.sweep: by name each would be looked up again."""
    return [
        Job(
            id_, task, _decode(args), queue, priority, attempt, max_attempts, timeout, created_at, run_at, lease,
            waited, key, lost, expires_in, workflow, host,
        )
        for (
            lease, id_, task, args, queue, priority, attempt, max_attempts, timeout, created_at, run_at, waited,
            key, lost, expires_in, workflow,
        ) in rows
    ]  # fmt: skip
