"""Random workflows with random ends, against what a few lines say should become of them."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.core.workflow import Workflow
from tests.workflow_kit import Hand, by_hand

POLICIES = ("cancel", "ignore", "hold")
ENDS = {"finish": "finished", "fail": "failed", "cancel": "cancelled"}


class Plan:
    """A workflow to be. needs: by the number of each job. own: how each ends if it runs."""

    def __init__(self, needs: list[set[int]], policies: list[str], own: list[str]) -> None:
        self.needs, self.policies, self.own = needs, policies, own

    def __repr__(self) -> str:
        return f"Plan({self.needs}, {self.policies}, {self.own})"

    def becomes(self) -> list[str]:
        """What becomes of each job; those it needs have lower numbers."""
        found: list[str] = []
        for needs, policy, own in zip(self.needs, self.policies, self.own, strict=True):
            states = {found[need] for need in needs}
            ended_badly = bool(states & {"failed", "cancelled"})
            if policy == "cancel" and ended_badly:
                found.append("cancelled")
            elif "waiting" in states or (policy == "hold" and ended_badly):
                found.append("waiting")
            else:
                found.append(ENDS[own])
        return found

    def runs(self, number: int, becomes: list[str]) -> bool:
        """Whether a job is ever handed out: one that is cancelled for another's sake is not."""
        states = {becomes[need] for need in self.needs[number]}
        if self.policies[number] == "cancel" and states & {"failed", "cancelled"}:
            return False
        return becomes[number] != "waiting"


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    size = draw(st.integers(1, 9))
    needs = [draw(st.sets(st.integers(0, n - 1), max_size=3)) if n else set() for n in range(size)]
    policies = [draw(st.sampled_from(POLICIES)) for _ in range(size)]
    own = [draw(st.sampled_from(("finish", "finish", "finish", "fail", "cancel"))) for _ in range(size)]
    return Plan(needs, policies, own)


async def play(hand: Hand, plan: Plan, rng: Random) -> None:
    flow = Workflow("random")
    for number in rng.sample(range(len(plan.needs)), len(plan.needs)):
        flow.add(
            "t", n=number, name=str(number), after=[str(need) for need in plan.needs[number]],
            on_failure=plan.policies[number],  # type: ignore[arg-type]
        )  # fmt: skip
    becomes = plan.becomes()
    run = await hand.flows.start(flow)
    ended: set[int] = set()
    handed: list[int] = []
    held: list[Any] = []
    while True:
        jobs = await hand.take(rng.randint(1, 4))
        for job in jobs:
            number = job.args["n"]
            handed.append(number)
            held.append(job)
            for need in plan.needs[number]:
                assert need in ended or not plan.runs(need, becomes), f"{number} ran before {need} had ended"
        if not held and not jobs:
            small = {"notes": rng.randint(1, 3), "edges": rng.randint(1, 3)}
            if not await hand.resolve(**small):
                break
            continue
        if held and rng.random() < 0.6:
            job = held.pop(rng.randrange(len(held)))
            await hand.end_one(job, plan.own[job.args["n"]])  # type: ignore[arg-type]
            ended.add(job.args["n"])
        elif rng.random() < 0.5:
            await hand.flows.resolve(notes=2, edges=2)

    assert sorted(handed) == sorted(n for n in range(len(becomes)) if plan.runs(n, becomes))
    states = await hand.states(run.id)
    assert [states[str(number)] for number in range(len(becomes))] == becomes
    status = await run.status()
    waiting, bad = becomes.count("waiting"), sum(state in ("failed", "cancelled") for state in becomes)
    assert (status.pending, status.failed) == (waiting, bad)
    assert status.state == ("running" if waiting else "failed" if bad else "finished")
    await hand.flows.cancel(run.id)
    await hand.resolve()
    assert (await run.status()).pending == 0


@pytest.mark.timeout(100)
@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(plan=plans(), seed=st.integers(0, 1 << 30))
async def test_every_job_runs_once_after_what_it_needs_or_never(dsn: str, plan: Plan, seed: int) -> None:
    async with by_hand(dsn) as hand:
        await play(hand, plan, Random(seed))
