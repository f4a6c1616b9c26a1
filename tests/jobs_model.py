"""What the job queue should hold after each step, as a model without any database.

Owns: jobs, leases, lanes and limits as plain objects, and what each step makes of them. Knows no SQL: positions
and the numbers of leases are told to it, and whatever is handed out is judged here. Disagreement is an
AssertionError.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.job import ENDED, Job, State, Step, after

Lane = tuple[str, int, str]
END_OF: dict[str, Step] = {"finish": "finish", "fail": "fail", "cancel": "cancel", "expire": "expire"}


@dataclass
class ModelJob:
    """A job. pos: its place in line. unique: the key that it was added under, if any."""

    id: int
    queue: str
    priority: int = 0
    key: str = ""
    max_attempts: int = 5
    state: State = "ready"
    run_at: float = 0.0
    pos: int | None = None
    attempt: int = 1
    lost: int = 0
    args: dict[str, Any] = field(default_factory=dict)
    expires_at: float | None = None

    @property
    def lane(self) -> Lane:
        return self.queue, self.priority, self.key

    def step(self, step: Step) -> None:
        """Raises ValueError for a step that this state does not allow: handed out twice, ended twice."""
        self.state = after(self.state, step)


@dataclass
class ModelLease:
    """What one claim handed out. ids: as the database lists them. counted: limits count them one by one."""

    id: int
    worker: int
    lane: Lane
    counted: bool
    ids: set[int]
    started: set[int] = field(default_factory=set)


@dataclass
class ModelQueue:
    """last_pos: nothing beyond it is handed out. begun: when a job was handed out under the rate."""

    concurrency: int | None = None
    rate: int | None = None
    per: float = 1.0
    last_pos: int | None = None
    begun: list[float] = field(default_factory=list)

    @property
    def limited(self) -> bool:
        return self.concurrency is not None or self.rate is not None

    def least_allowed(self, now: float) -> int:
        """How many may begin at least; a job counts for one sixty-fourth of the window longer than it must."""
        assert self.rate is not None
        return self.rate - sum(at > now - self.per * 65 / 64 for at in self.begun)

    def most_allowed(self, now: float) -> int:
        assert self.rate is not None
        return self.rate - sum(at > now - self.per for at in self.begun)


class Model:
    """The queue. lanes: those that workers have made, each with its mark."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.jobs: dict[int, ModelJob] = {}
        self.leases: dict[int, ModelLease] = {}
        self.lanes: dict[Lane, int] = {}
        self.queues: dict[str, ModelQueue] = {}
        self.rules: dict[str, int] = {}
        self.alive: set[int] = set()
        self.requested: set[Lane] = set()

    # -- what the queue is like

    def queue(self, name: str) -> ModelQueue:
        return self.queues.setdefault(name, ModelQueue())

    def live(self) -> list[ModelJob]:
        return [job for job in self.jobs.values() if job.state not in ENDED]

    def keyed(self, queue: str) -> bool:
        """Whether claims of a queue go by turns."""
        return any(lane[0] == queue and self.limited(lane) for lane in self.lanes)

    def limited(self, lane: Lane) -> bool:
        return bool(lane[2]) or self.queue(lane[0]).limited

    def in_line(self, lane: Lane) -> list[ModelJob]:
        """What a claim may take from a lane, in its order."""
        mark, last = self.lanes[lane], self.queue(lane[0]).last_pos
        found = [
            job
            for job in self.live()
            if job.lane == lane and job.pos is not None and job.pos > mark and (last is None or job.pos <= last)
        ]
        return sorted(found, key=lambda job: job.pos or 0)

    def stragglers(self, queue: str) -> list[ModelJob]:
        """What only a sweep can find: below the mark, and nobody's."""
        if self.queue(queue).last_pos is not None:
            return []
        return [
            job
            for job in self.live()
            if job.state == "ready" and job.queue == queue and job.lane in self.lanes
            and (job.pos or 0) <= self.lanes[job.lane]
        ]  # fmt: skip

    def places(self, *, queue: str | None = None, key: str | None = None) -> int:
        """How many places of a limit are taken, as leases list them."""
        return sum(
            len(lease.ids) for lease in self.leases.values() if queue == lease.lane[0] or key == lease.lane[2]
        )

    def rule_room(self, lane: Lane) -> int | None:
        limit = self.rules.get(lane[2].split(":")[0]) if lane[2] else None
        return None if limit is None else limit - self.places(key=lane[2])

    # -- steps that add and promote

    def add(self, job: ModelJob) -> None:
        assert job.id not in self.jobs, "one id for two jobs"
        self.jobs[job.id] = job
        self.requested.add(job.lane)

    def adopt(self) -> None:
        for lane in self.requested:
            self.lanes.setdefault(lane, 0)
        self.requested.clear()

    def due(self, queues: Iterable[str]) -> list[ModelJob]:
        names = set(queues)
        return [
            job for job in self.live() if job.state == "delayed" and job.run_at <= self.now and job.queue in names
        ]

    # -- steps of operators

    def overdue(self, locked: set[Lane]) -> list[ModelJob]:
        """What has not begun in time; jobs in line only in lanes that nobody has locked."""
        free = set(self.lanes) - locked
        return [
            job
            for job in self.live()
            if job.expires_at is not None
            and job.expires_at <= self.now
            and (job.state == "delayed" or (job.state == "ready" and job.lane in free))
        ]

    def revivable(self) -> list[ModelJob]:
        """What an operator may let run: what has ended and not finished, and what waits for its time."""
        states = ("failed", "cancelled", "expired", "delayed")
        return sorted((job for job in self.jobs.values() if job.state in states), key=lambda job: job.id)

    def revived(self, jobs: Iterable[ModelJob]) -> None:
        for job in jobs:
            if job.state != "delayed":  # a job anew, under its old number
                job.attempt, job.lost, job.expires_at = 1, 0, None
            job.step("redrive")
            job.run_at = self.now
            self.requested.add(job.lane)
            for lease in self.leases.values():
                lease.ids.discard(job.id)

    # -- handing out

    def expect_claim(self, queue: str, limit: int, locked: set[Lane]) -> list[int] | None:
        """Exactly what a claim of a queue without keys and limits hands out; None where turns decide."""
        if self.keyed(queue):
            return None
        for lane in sorted(lane for lane in self.lanes if lane[0] == queue and lane not in locked):
            if found := self.in_line(lane):
                return [job.id for job in found[:limit]]
        return []

    def something_to_claim(self, queue: str) -> bool:
        """Whether a claim that nobody is in the way of must hand out something."""
        settings = self.queue(queue)
        if settings.concurrency is not None and self.places(queue=queue) >= settings.concurrency:
            return False
        if settings.rate is not None and settings.least_allowed(self.now) < 1:
            return False
        lanes = [lane for lane in self.lanes if lane[0] == queue]
        return any(self.in_line(lane) and self.rule_room(lane) not in _NO_ROOM for lane in lanes)

    def claimed(self, queue: str, worker: int, jobs: Sequence[Job], *, limit: int) -> None:
        """Judge what a claim handed out, and take it in."""
        assert len(jobs) <= limit, "more than was asked for"
        settings, counted = self.queue(queue), self.keyed(queue)
        for lane in dict.fromkeys((job.queue, job.priority, job.key) for job in jobs):
            of_lane = [job for job in jobs if (job.queue, job.priority, job.key) == lane]
            self._fits(lane, of_lane)
            room = self.rule_room(lane)
            assert room is None or len(of_lane) <= room, f"beyond the limit of key {lane[2]}"
            self._lease(worker, lane, of_lane, counted=counted)
            self.lanes[lane] = max(self.jobs[job.id].pos or 0 for job in of_lane)
        if jobs and settings.concurrency is not None:
            assert self.places(queue=queue) <= settings.concurrency, "beyond the limit of the queue"
        if jobs and settings.rate is not None:
            assert len(jobs) <= settings.most_allowed(self.now), "faster than the queue's rate"
            settings.begun += [self.now] * len(jobs)

    def _fits(self, lane: Lane, jobs: Sequence[Job]) -> None:
        line = [job.id for job in self.in_line(lane)]
        assert [job.id for job in jobs] == line[: len(jobs)], "not the first ones in line"

    def swept(self, worker: int, jobs: Sequence[Job], expected: Sequence[ModelJob], *, limit: int) -> None:
        """Judge what a sweep handed out; expected: the stragglers that nothing holds back."""
        wanted = {job.id for job in expected}
        assert {job.id for job in jobs} <= wanted, "a sweep handed out what is no straggler"
        assert len(jobs) == min(limit, len(wanted)), "a sweep missed stragglers"
        for lane in dict.fromkeys((job.queue, job.priority, job.key) for job in jobs):
            of_lane = [job for job in jobs if (job.queue, job.priority, job.key) == lane]
            self._lease(worker, lane, of_lane, counted=False)

    def _lease(self, worker: int, lane: Lane, jobs: Sequence[Job], *, counted: bool) -> None:
        [number] = {job.lease for job in jobs}
        assert number not in self.leases
        for given in jobs:
            job = self.jobs[given.id]
            job.step("claim")
            assert (given.attempt, given.lost, given.args) == (job.attempt, job.lost, job.args), given.id
        self.leases[number] = ModelLease(number, worker, lane, counted, {job.id for job in jobs})

    # -- what a worker reports

    def holds(self, worker: int, job: Job) -> bool:
        lease = self.leases.get(job.lease)
        return lease is not None and lease.worker == worker and job.id in lease.ids

    def reported(self, worker: int, job: Job, step: Step, delay: float) -> bool:
        """Take one outcome in; False when it must be refused."""
        held, lease = self.jobs[job.id], self.leases.get(job.lease)
        if lease is None or not self.holds(worker, job) or held.state != "running":
            return False
        held.step(step)
        if step in ("retry", "snooze"):
            held.attempt += step == "retry"
            held.run_at, held.pos = self.now + delay, None
        if step in ("retry", "snooze", "release") or lease.counted:
            lease.ids.discard(job.id)
        return True

    def freed(self, worker: int, leases: Iterable[int]) -> None:
        for number in leases:
            if number in self.leases and self.leases[number].worker == worker:
                del self.leases[number]

    def begun(self, worker: int, job: Job) -> bool:
        if not self.holds(worker, job):
            return False
        self.leases[job.lease].started.add(job.id)
        return True

    def rescued(self) -> tuple[list[ModelJob], int]:
        """The leases of workers that are gone are taken: which jobs run again, and how many have failed."""
        again: list[ModelJob] = []
        failed = 0
        for lease in [lease for lease in self.leases.values() if lease.worker not in self.alive]:
            del self.leases[lease.id]
            for job in (self.jobs[id_] for id_ in lease.ids if self.jobs[id_].state == "running"):
                ran = job.lost == 0 or job.id in lease.started
                if ran and (job.lost >= 2 or (job.lost > 0 and job.attempt >= job.max_attempts)):
                    job.step("fail")
                    failed += 1
                    continue
                job.step("rescue")
                job.attempt += ran
                job.lost += ran
                job.run_at = self.now
                again.append(job)
        return again, failed

    def given_back(self, worker: int, known: Iterable[int]) -> list[ModelJob]:
        """What a worker holds without knowing goes back."""
        numbers, back = set(known), []
        for lease in [
            lease for lease in self.leases.values() if lease.worker == worker and lease.id not in numbers
        ]:
            del self.leases[lease.id]
            for job in (self.jobs[id_] for id_ in lease.ids if self.jobs[id_].state == "running"):
                job.step("release")
                back.append(job)
        return back


_NO_ROOM = range(-1000, 1)
