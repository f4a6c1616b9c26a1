"""Drives the real job queue and its model side by side, one step at a time, over several connections.

Owns: the connections, what each worker still has in hand, and the comparison after each step. Producers and one
claim may keep their transactions open over other steps, which is where the races are; time stands still unless
told.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import asyncpg

from pipeline.core.job import Job, Outcome
from pipeline.db.connection import Database
from pipeline.db.jobs import JOB_SETTINGS, JobStore, _jobs, job_database
from pipeline.db.statements import statement
from pipeline.errors import Busy
from tests.jobs_model import END_OF, Lane, Model, ModelJob
from tests.time_kit import stand_at

QUEUES = ("plain", "turns")
START = 1_900_000_000.0
DEAD_SECONDS = 15.0
NEVER = 1e9
TABLES = (
    "job", "lane", "lane_state", "lane_request", "worker", "lease", "queue", "key_rule", "limiter", "job_unique",
    "job_archive",
)  # fmt: skip
LOOK = """
select json_build_object(
    'jobs', (
        select json_agg(json_build_array(id, pos, attempt, lost, extract(epoch from run_at), args))
        from pipeline.job
    ),
    'leases', (select json_agg(json_build_array(id, worker, ids, started)) from pipeline.lease),
    'archive', (select json_agg(json_build_array(id, state, attempt)) from pipeline.job_archive)
)::text
"""


class Producer:
    """A connection with a transaction that stays open. made: what it adds when it commits."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.transaction: Any = None
        self.made: list[ModelJob] = []


class OpenClaim:
    """A claim whose transaction has not ended. maybe: lanes that it may hold locked."""

    def __init__(self, worker: int, queue: str, jobs: list[Job], limit: int, maybe: set[Lane]) -> None:
        self.worker, self.queue, self.jobs, self.limit, self.maybe = worker, queue, jobs, limit, maybe


class World:
    """See the module. Each public coroutine is one step, which leaves the database as the model says."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.seen: Counter[str] = Counter()

    async def open(self) -> None:
        """Connect; all sessions share a clock that stands still."""
        self.sql = await asyncpg.connect(self._dsn)
        await stand_at(self.sql, START)
        self.database: Database = await job_database(self._dsn, max_size=1).open()
        self.store = JobStore(self.database)
        self.producers = [Producer(await asyncpg.connect(self._dsn)) for _ in range(3)]
        self.overlap = await asyncpg.connect(self._dsn, server_settings=JOB_SETTINGS)
        async with self.database.acquire() as connection:
            self._all = [self.sql, self.overlap, *(p.connection for p in self.producers)]
            for one in (*self._all, connection):
                await one.execute("set lock_timeout = '25ms'; set jit = off")
        self.claim_open: OpenClaim | None = None

    async def close(self) -> None:
        for one in self._all:
            await one.close()
        await self.database.close()

    async def begin_anew(self) -> None:
        """Empty tables, three workers, the clock at the start."""
        await self.abandon()
        await self.sql.execute("truncate " + ", ".join(f"pipeline.{name}" for name in TABLES))
        self.model = Model(START)
        self.claim_open = None
        await self._set_clock()
        self.workers = [await self._new_worker() for _ in range(3)]
        self.hands: dict[int, list[Job]] = {}
        self.last_write: tuple[int, list[Outcome], list[int]] | None = None
        self.after = dict.fromkeys(QUEUES, "")

    async def abandon(self) -> None:
        """Roll everything back that is open."""
        for producer in self.producers:
            if producer.transaction is not None:
                await producer.transaction.rollback()
            producer.transaction, producer.made = None, []
        if self.claim_open is not None:
            await self.overlap.execute("rollback")
            self.claim_open = None

    # -- adding

    async def enqueue(
        self,
        queue: str,
        priority: int,
        key: str,
        delay: float,
        attempts: int,
        number: int,
        slot: int | None = None,
        expires: float | None = None,
    ) -> None:
        """Add jobs, at once or in a producer's open transaction."""
        producer = None if slot is None else self.producers[slot]
        connection = self.sql if producer is None else producer.connection
        rows = await connection.fetch(
            """select pipeline.enqueue('t', '{"n": 1}', queue => $1, priority => $2, key => $3, max_attempts => $4,
                   run_at => case when $5::float8 > 0 then pipeline.now() + make_interval(secs => $5) end,
                   expires_at => pipeline.now() + make_interval(secs => $7::float8)) as id
               from generate_series(1, $6)""",
            queue, priority, key, attempts, delay, number, expires,
        )  # fmt: skip
        ids = [row["id"] for row in rows]
        state: Any = "delayed" if delay > 0 else "ready"
        until = None if expires is None else self.model.now + expires
        made = [
            ModelJob(
                id_, queue, priority, key, attempts, state, self.model.now + delay, args={"n": 1}, expires_at=until
            )
            for id_ in ids
        ]  # fmt: skip
        await self._place(made, connection)
        for job in made:
            if producer is None:
                self.model.add(job)
            else:
                producer.made.append(job)

    async def open_transaction(self, slot: int) -> None:
        producer = self.producers[slot]
        producer.transaction = producer.connection.transaction()
        await producer.transaction.start()

    async def end_transaction(self, slot: int, *, commit: bool) -> None:
        producer = self.producers[slot]
        if commit:
            await producer.transaction.commit()
            for job in producer.made:
                self.model.add(job)
        else:
            await producer.transaction.rollback()
            await self._set_clock()  # a rollback takes the session's setting back, too
        producer.transaction, producer.made = None, []

    # -- handing out

    async def claim(self, queue: str, pick: int, limit: int) -> int:
        """Claim, and judge; returns how many jobs came."""
        await self._adopt()
        worker, locked = self._worker(pick), self._locked(queue)
        expected = self.model.expect_claim(queue, limit, locked)
        try:
            for _ in range(4):
                claim = await self.store.claim(queue, limit, worker, after=self.after[queue])
                self.after[queue] = claim.after
                if claim.jobs or claim.ask_in is None:
                    break
        except Busy:
            assert locked, "a claim waits for nobody but another claim"
            return 0
        if expected is not None:
            assert [job.id for job in claim.jobs] == expected, "not what a claim must hand out"
        elif not locked and self.model.something_to_claim(queue):
            assert claim.jobs, "a claim missed what it could hand out"
        self.model.claimed(queue, worker, claim.jobs, limit=limit)
        self.hands.setdefault(worker, []).extend(claim.jobs)
        return len(claim.jobs)

    async def begin_claim(self, queue: str, pick: int, limit: int) -> None:
        """Claim in a transaction that stays open."""
        await self._adopt()
        worker = self._worker(pick)
        await self.overlap.execute("begin")
        rows = await self.overlap.fetch(statement("jobs/claim"), queue, limit, limit, worker, self.after[queue])
        jobs = _jobs([row for row in rows if row["id"] is not None], None)
        maybe = {(job.queue, job.priority, job.key) for job in jobs}
        if self.model.keyed(queue):
            maybe = {lane for lane in self.model.lanes if lane[0] == queue}
        self.claim_open = OpenClaim(worker, queue, jobs, limit, maybe)

    async def end_claim(self, fate: str) -> None:
        """It commits, it rolls back, or it commits and the answer is lost."""
        claim, self.claim_open = self.claim_open, None
        assert claim is not None
        if fate == "rollback":
            await self.overlap.execute("rollback")
            await self._set_clock()
            return
        await self.overlap.execute("commit")
        self.model.claimed(claim.queue, claim.worker, claim.jobs, limit=claim.limit)
        if fate == "commit":
            self.hands.setdefault(claim.worker, []).extend(claim.jobs)

    async def sweep(self, queue: str, pick: int, limit: int) -> int:
        """Sweep, and judge; in lanes with limits the stragglers go back in line."""
        await self._adopt()
        worker, locked = self._worker(pick), self._locked(queue)
        free = [job for job in self.model.stragglers(queue) if job.lane not in locked]
        limited = [job for job in free if self.model.limited(job.lane)]
        expected = [job for job in free if not self.model.limited(job.lane)]
        swept = await self.store.sweep(queue, limit, worker, every=0, search_every=NEVER)
        self.seen["stragglers"] += len(swept.jobs)
        if locked:
            assert len(swept.jobs) <= len(expected)
            expected = [job for job in expected if job.id in {job.id for job in swept.jobs}]
        self.model.swept(worker, swept.jobs, expected, limit=limit)
        self.hands.setdefault(worker, []).extend(swept.jobs)
        if limited:
            before = {job.id: job.pos for job in limited}
            await self._place(limited, self.sql)
            moved = [job for job in limited if job.pos != before[job.id]]
            self.seen["put back in line"] += len(moved)
            assert moved or locked or limit <= len(swept.jobs), "a sweep missed stragglers"
            assert all((job.pos or 0) > self.model.lanes[job.lane] for job in moved)
        return len(swept.jobs)

    async def promote(self) -> None:
        due = self.model.due(QUEUES)
        promoted, _ = await self.store.promote(QUEUES)
        assert promoted == len(due), "a promotion missed what is due"
        for job in due:
            job.step("promote")
        await self._place(due, self.sql)

    # -- what workers say

    async def report(self, pick: int, steps: Sequence[tuple[str, float]], *, free: bool) -> None:
        """A worker, known or thought dead, reports on the first jobs in its hands."""
        worker = self._holder(pick)
        if worker is None:
            return
        jobs = self.hands[worker][: len(steps)]
        del self.hands[worker][: len(steps)]
        outcomes = [
            Outcome(job, "fail" if step == "retry" and job.last_attempt else step, delay=delay)  # type: ignore[arg-type]
            for job, (step, delay) in zip(jobs, steps, strict=False)
        ]
        rest = {job.lease for job in self.hands[worker]}
        freed = [lease for lease in {job.lease for job in jobs} if lease not in rest] if free else []
        self.last_write = (worker, outcomes, freed)
        await self.write(*self.last_write)

    async def write(self, worker: int, outcomes: list[Outcome], freed: list[int]) -> None:
        """Outcomes reach the database, perhaps for the second time."""
        written = await self.store.write(worker, outcomes, freed)
        order = {"retry": 0, "snooze": 0, "release": 1}
        accepted, back = 0, []
        for outcome in sorted(outcomes, key=lambda o: order.get(o.step, 2)):
            if self.model.reported(worker, outcome.job, END_OF.get(outcome.step, outcome.step), outcome.delay):  # type: ignore[arg-type]
                accepted += 1
                back += [self.model.jobs[outcome.job.id]] if outcome.step == "release" else []
        self.model.freed(worker, freed)
        assert written.refused == len(outcomes) - accepted, "accepted from a worker that does not hold it"
        self.seen["refused"] += written.refused
        await self._place(back, self.sql)

    async def begin(self, pick: int) -> None:
        """A worker notes that it begins a job which was lost before."""
        worker = self._holder(pick)
        lost = [job for job in self.hands.get(worker or 0, []) if job.lost]
        if worker is not None and lost:
            assert await self.store.begin(lost[0], worker) == self.model.begun(worker, lost[0])
            self.seen["begun"] += 1

    async def vanish(self, pick: int) -> None:
        """A worker is not seen any more; it may still report. Another takes its place."""
        place = pick % len(self.workers)
        worker = self.workers[place]
        self.model.alive.discard(worker)
        await self.sql.execute(
            "update pipeline.worker set seen_at = seen_at - interval '1 day' where id = $1", worker
        )
        self.workers[place] = await self._new_worker()

    async def rescue(self) -> None:
        again, failed = self.model.rescued()
        rescued = await self.store.rescue(DEAD_SECONDS)
        assert rescued == (len(again), failed), f"rescued {rescued}, not {len(again), failed}"
        self.seen["rescued"] += len(again)
        await self._place(again, self.sql)

    async def give_back(self, pick: int) -> None:
        """A worker returns what it holds without knowing."""
        worker = self._worker(pick)
        known = [job.lease for job in self.hands.get(worker, [])]
        back = self.model.given_back(worker, known)
        await self.store.give_back(worker, known, 0)
        await self._place(back, self.sql)

    # -- what operators do

    async def hold(self, queue: str, verb: str) -> None:
        """Pause, drain or resume. Refused by a lock while a claim of that queue is under way."""
        try:
            await self.sql.execute(f"select pipeline.{verb}_queue($1)", queue)
        except asyncpg.LockNotAvailableError:
            assert self._locked(queue)
            return
        busy = self.claim_open is not None and self.claim_open.queue == queue and self.claim_open.jobs
        last_pos = {"pause": 0, "drain": await self._drawn(), "resume": None}[verb]
        assert not busy or self.model.queue(queue).last_pos == last_pos, "it did not wait for a claim under way"
        self.model.queue(queue).last_pos = last_pos

    async def limit(self, queue: str, concurrency: int | None, rate: int | None) -> None:
        """Set the limits of a queue, 0 for none."""
        try:
            await self.sql.execute(
                "select pipeline.set_queue($1, concurrency => $2, rate => $3)", queue, concurrency, rate
            )
        except asyncpg.LockNotAvailableError:
            assert self._locked(queue)
            return
        settings = self.model.queue(queue)
        if concurrency is not None:
            settings.concurrency = concurrency or None
        if rate is not None:
            settings.rate = rate or None

    async def rule(self, name: str, concurrency: int | None) -> None:
        """Set how many jobs of one key run at a time, or take the rule away."""
        await self.sql.execute("select pipeline.set_key_rule($1, $2)", name, concurrency)
        if concurrency is None:
            self.model.rules.pop(name, None)
        else:
            self.model.rules[name] = concurrency

    async def cancel(self, pick: int, number: int) -> None:
        """End some jobs, whoever holds them."""
        jobs = sorted(self.model.live(), key=lambda job: job.id)[pick::3][:number]
        ended = await self.sql.fetchval("select pipeline.cancel_jobs($1)", [job.id for job in jobs])
        assert sorted(ended) == [job.id for job in jobs]
        for job in jobs:
            job.step("cancel")

    async def retry(self, pick: int, number: int) -> None:
        """Let some run again that have ended and not finished, and delayed ones at once."""
        again = self.model.revivable()[pick::3][:number]
        back = await self.sql.fetchval("select pipeline.retry_jobs($1)", [job.id for job in again])
        assert sorted(back) == sorted(job.id for job in again)
        self.model.revived(again)
        self.seen["run again"] += len(again)
        await self._place(again, self.sql)

    async def expire(self) -> None:
        """End what has not begun in time."""
        due = self.model.overdue(self._locked("plain") | self._locked("turns"))
        count = await self.sql.fetchval("select pipeline.expire_jobs()")
        assert count == len(due), f"{count} have expired, not {due}"
        for job in due:
            job.step("expire")
        self.seen["expired"] += count

    async def pass_time(self, seconds: float) -> None:
        """The clock jumps, and the workers that live have been seen since."""
        self.model.now += seconds
        await self._set_clock()
        await self.sql.execute(
            "update pipeline.worker set seen_at = pipeline.now() where id = any($1)", sorted(self.model.alive)
        )

    # -- judging

    async def compare(self) -> None:
        """The database holds what the model holds."""
        found = json.loads(await self.sql.fetchval(LOOK))
        jobs = {row[0]: tuple(row[1:]) for row in found["jobs"] or ()}
        live = self.model.live()
        assert set(jobs) == {job.id for job in live}, "lost, or not ended"
        for job in live:
            assert jobs[job.id] == (job.pos, job.attempt, job.lost, job.run_at, job.args), f"{job}: {jobs[job.id]}"
        leases = {row[0]: (row[1], sorted(row[2]), sorted(set(row[3]))) for row in found["leases"] or ()}
        assert leases == {e.id: (e.worker, sorted(e.ids), sorted(e.started)) for e in self.model.leases.values()}
        ended = sorted((job.id, job.state, job.attempt) for job in self.model.jobs.values() if job not in live)
        assert sorted(tuple(row) for row in found["archive"] or ()) == ended, "ended twice, or otherwise"

    async def finish_all(self) -> None:
        """Whatever is left runs to its end once nothing holds it back."""
        await self.abandon()
        await self._set_clock()
        for queue in QUEUES:
            await self.hold(queue, "resume")
            await self.limit(queue, 0, 0)
        for name in list(self.model.rules):
            await self.rule(name, None)
        for pick in range(len(self.workers)):
            await self.vanish(pick)
        self.hands.clear()
        await self.rescue()
        await self.pass_time(1000)
        await self.promote()
        for _ in range(200):
            got = 0
            for queue in QUEUES:
                got += await self.claim(queue, 0, 100) + await self.sweep(queue, 0, 100)
            await self.report(0, [("finish", 0.0)] * 200, free=True)
            if not got and not any(self.model.stragglers(queue) for queue in QUEUES):
                break
        assert self.model.live() == [], "never handed out"
        await self.compare()

    # -- small things

    def _worker(self, pick: int) -> int:
        return self.workers[pick % len(self.workers)]

    def _holder(self, pick: int) -> int | None:
        holders = [worker for worker, jobs in self.hands.items() if jobs]
        return holders[pick % len(holders)] if holders else None

    def _locked(self, queue: str) -> set[Lane]:
        """The lanes of a queue that an open claim may hold."""
        claim = self.claim_open
        return claim.maybe if claim is not None and claim.queue == queue else set()

    async def _adopt(self) -> None:
        try:
            await self.store.adopt()
        except Busy:
            return
        self.model.adopt()

    async def _new_worker(self) -> int:
        worker = await self.store.register("w", QUEUES)
        self.model.alive.add(worker)
        return worker

    async def _drawn(self) -> int:
        return int(await self.sql.fetchval("select coalesce(pg_sequence_last_value('pipeline.job_pos'), 0)"))

    async def _place(self, jobs: Sequence[ModelJob], connection: asyncpg.Connection) -> None:
        """Tell the model which positions its jobs have drawn."""
        if jobs:
            rows = await connection.fetch(
                "select id, pos from pipeline.job where id = any($1)", [job.id for job in jobs]
            )
            found = {row["id"]: row["pos"] for row in rows}
            for job in jobs:
                job.pos = found.get(job.id)

    async def _set_clock(self) -> None:
        async with self.database.acquire() as connection:
            for one in (*self._all, connection):
                await one.execute(
                    f"select set_config('pipeline.fake_now', to_timestamp({self.model.now!r})::text, false)"
                )
