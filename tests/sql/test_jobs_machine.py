"""Whatever the order of steps, the job queue in Postgres does what its model does.

Runs a while in the suite; `make check-jobs-model` runs longer, and `make check-jobs-bugs` shows that it can tell.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Coroutine
from typing import Any, ClassVar

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.conftest import with_database
from tests.jobs_world import QUEUES, World

EXAMPLES = int(os.environ.get("PGREFLEX_JOBS_EXAMPLES", "150"))
STEPS = 40

queues = st.sampled_from(QUEUES)
keys = st.sampled_from(["", "", "c:1", "c:2"])
picks = st.integers(0, 5)
limits = st.sampled_from([1, 2, 5, 100])
slots = st.integers(0, 2)
steps = st.tuples(
    st.sampled_from(["finish", "finish", "finish", "fail", "cancel", "expire", "retry", "snooze", "release"]),
    st.sampled_from([0.0, 5.0]),
)


class JobsMachine(RuleBasedStateMachine):
    """Steps of the world in any order."""

    loop: ClassVar[asyncio.AbstractEventLoop]
    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.do(self.world.begin_anew())

    def do(self, step: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(step)

    def is_open(self, slot: int) -> bool:
        return self.world.producers[slot].transaction is not None

    @rule(
        queue=queues, priority=st.sampled_from([0, 0, 5]), key=keys, delay=st.sampled_from([0, 0, 0, 5, 100]),
        attempts=st.sampled_from([1, 2, 5]), number=st.integers(1, 4), slot=st.sampled_from([None, None, 0, 1, 2]),
        expires=st.sampled_from([None, None, 1.0, 50.0]),
    )  # fmt: skip
    def enqueue(
        self, queue: str, priority: int, key: str, delay: float, attempts: int, number: int, slot: int | None,
        expires: float | None,
    ) -> None:  # fmt: skip
        if slot is not None and not self.is_open(slot):
            self.do(self.world.open_transaction(slot))
        key = key if queue == "turns" else ""
        self.do(self.world.enqueue(queue, priority, key, delay, attempts, number, slot, expires))

    @rule(slot=slots, commit=st.sampled_from([True, True, False]))
    def end_transaction(self, slot: int, commit: bool) -> None:
        if self.is_open(slot):
            self.do(self.world.end_transaction(slot, commit=commit))

    @rule(slot=slots)
    def open_transaction(self, slot: int) -> None:
        """One that has an id and may draw positions later."""
        if not self.is_open(slot):
            self.do(self.world.open_transaction(slot))
            self.do(self.world.producers[slot].connection.execute("select pg_current_xact_id()"))

    @rule(queue=queues, pick=picks, limit=limits)
    def claim(self, queue: str, pick: int, limit: int) -> None:
        self.do(self.world.claim(queue, pick, limit))

    @rule(queue=queues, pick=picks, limit=limits)
    def sweep(self, queue: str, pick: int, limit: int) -> None:
        self.do(self.world.sweep(queue, pick, limit))

    @precondition(lambda self: not self.claim_is_open())
    @rule(queue=queues, key=keys, pick=picks, slot=slots, times=st.integers(1, 3))
    def straggle(self, queue: str, key: str, pick: int, slot: int, times: int) -> None:
        """A position is drawn, others pass it, sweeps look, and the transaction commits afterwards."""
        key = key if queue == "turns" else ""
        if not self.is_open(slot):
            self.do(self.world.open_transaction(slot))
        self.do(self.world.enqueue(queue, 0, key, 0, 5, 1, slot))
        self.do(self.world.enqueue(queue, 0, key, 0, 5, 1))
        self.do(self.world.claim(queue, pick, 100))
        for _ in range(times):
            self.do(self.world.sweep(queue, pick, 100))
        self.do(self.world.end_transaction(slot, commit=True))
        self.do(self.world.sweep(queue, pick, 100))

    def claim_is_open(self) -> bool:
        return self.world.claim_open is not None

    @precondition(lambda self: not self.claim_is_open())
    @rule(queue=queues, pick=picks, limit=limits)
    def begin_claim(self, queue: str, pick: int, limit: int) -> None:
        self.do(self.world.begin_claim(queue, pick, limit))

    @precondition(claim_is_open)
    @rule(fate=st.sampled_from(["commit", "commit", "rollback", "lost"]))
    def end_claim(self, fate: str) -> None:
        self.do(self.world.end_claim(fate))

    @rule(pick=picks, steps=st.lists(steps, min_size=1, max_size=6), free=st.sampled_from([True, True, False]))
    def report(self, pick: int, steps: list[tuple[str, float]], free: bool) -> None:
        self.do(self.world.report(pick, steps, free=free))

    @precondition(lambda self: self.world.last_write)
    @rule()
    def report_again(self) -> None:
        """The answer to the last report was lost."""
        assert self.world.last_write
        self.do(self.world.write(*self.world.last_write))

    @rule(pick=picks)
    def begin(self, pick: int) -> None:
        self.do(self.world.begin(pick))

    @rule(pick=picks, at_once=st.booleans())
    def vanish(self, pick: int, at_once: bool) -> None:
        self.do(self.world.vanish(pick))
        if at_once:
            self.do(self.world.rescue())

    @precondition(lambda self: not self.claim_is_open())
    @rule(queue=queues, pick=picks, times=st.integers(1, 3), begun=st.booleans())
    def lose(self, queue: str, pick: int, times: int, begun: bool) -> None:
        """Several workers one after the other claim and vanish; whatever they held is reported late."""
        for _ in range(times):
            self.do(self.world.claim(queue, pick, 2))
            if begun:
                self.do(self.world.begin(pick))
            self.do(self.world.vanish(pick))
            self.do(self.world.rescue())

    @rule()
    def rescue(self) -> None:
        self.do(self.world.rescue())

    @rule(pick=picks)
    def give_back(self, pick: int) -> None:
        self.do(self.world.give_back(pick))

    @rule(queue=queues, verb=st.sampled_from(["pause", "resume", "drain", "resume"]))
    def hold(self, queue: str, verb: str) -> None:
        self.do(self.world.hold(queue, verb))

    @precondition(lambda self: not self.claim_is_open())
    @rule(
        queue=st.sampled_from(QUEUES[1:]), concurrency=st.sampled_from([None, 0, 1, 3]),
        rate=st.sampled_from([None, None, 0, 2]),
    )  # fmt: skip
    def limit(self, queue: str, concurrency: int | None, rate: int | None) -> None:
        self.do(self.world.limit(queue, concurrency, rate))

    @precondition(lambda self: not self.claim_is_open())
    @rule(concurrency=st.sampled_from([None, 1, 2]))
    def rule_of_keys(self, concurrency: int | None) -> None:
        self.do(self.world.rule("c", concurrency))

    @rule(pick=st.integers(0, 2), number=st.integers(1, 3), again=st.booleans())
    def cancel(self, pick: int, number: int, again: bool) -> None:
        self.do(self.world.cancel(pick, number))
        if again:  # while their workers still run them
            self.do(self.world.retry(pick, number))

    @rule(pick=st.integers(0, 2), number=st.integers(1, 5))
    def retry(self, pick: int, number: int) -> None:
        self.do(self.world.retry(pick, number))

    @precondition(lambda self: not self.claim_is_open())
    @rule(queue=queues, delay=st.sampled_from([0, 100]), pick=picks, claims=st.booleans())
    def expire(self, queue: str, delay: float, pick: int, claims: bool) -> None:
        """What a worker holds does not expire; all else does."""
        self.do(self.world.enqueue(queue, 0, "", delay, 5, 2, expires=1.0))
        if claims:
            self.do(self.world.claim(queue, pick, 1))
        self.do(self.world.pass_time(2.0))
        self.do(self.world.expire())

    @rule()
    def promote(self) -> None:
        self.do(self.world.promote())

    @rule(seconds=st.sampled_from([0.25, 1.125, 6.0, 101.0]))
    def pass_time(self, seconds: float) -> None:
        self.do(self.world.pass_time(seconds))

    @invariant()
    def agrees(self) -> None:
        self.do(self.world.compare())

    def teardown(self) -> None:
        self.do(self.world.finish_all())


def run(dsn: str, examples: int, *, derandomize: bool = True) -> Counter[str]:
    """Run the machine on a migrated database; returns how often it saw what."""
    with asyncio.Runner() as runner:
        JobsMachine.loop = runner.get_loop()
        JobsMachine.world = world = World(dsn)
        runner.run(world.open())
        try:
            run_state_machine_as_test(
                JobsMachine,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=STEPS,
                    derandomize=derandomize,
                    database=None,
                    deadline=None,
                    phases=[Phase.generate],
                    report_multiple_bugs=False,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(world.abandon())
            runner.run(world.close())
    return world.seen


@pytest.fixture
def scratch(server_dsn: str, template: str) -> Any:
    """A database of its own, for a test that runs its own loop."""
    name = f"{template}_machine"

    async def send(query: str) -> None:
        connection = await asyncpg.connect(server_dsn)
        await connection.execute(query)
        await connection.close()

    asyncio.run(send(f'drop database if exists "{name}" with (force)'))
    asyncio.run(send(f'create database "{name}" template "{template}"'))
    yield with_database(server_dsn, name)
    asyncio.run(send(f'drop database "{name}" with (force)'))


def test_no_order_of_steps_makes_the_queue_differ_from_its_model(scratch: str) -> None:
    seen = run(scratch, EXAMPLES, derandomize="PGREFLEX_JOBS_RANDOM" not in os.environ)
    print(dict(seen))
    for what in ("stragglers", "put back in line", "rescued", "refused", "begun", "run again", "expired"):
        assert seen[what] > 0, f"the machine never saw {what}"
