"""Jobs that wait for others: when they run, what becomes of them when those fail, and what survives a crash."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from pipeline.core.workflow import Batch, OnFailure, Workflow
from pipeline.db.jobs import JOB_SETTINGS
from pipeline.db.statements import statement
from pipeline.errors import QueryFailed
from tests.conftest import eventually
from tests.jobs_kit import lose
from tests.workflow_kit import Hand, by_hand


@pytest.fixture
async def hand(dsn: str) -> AsyncIterator[Hand]:
    async with by_hand(dsn) as hand:
        yield hand


def diamond(on_failure: OnFailure = "cancel") -> Workflow:
    flow = Workflow("diamond", on_failure=on_failure)
    top = flow.add("t", n="top", name="top")
    sides = [flow.add("t", n=side, name=side, after=top) for side in ("left", "right")]
    flow.add("t", n="bottom", name="bottom", after=sides)
    return flow


def fan(width: int, on_failure: OnFailure = "cancel") -> Workflow:
    flow = Workflow("fan", on_failure=on_failure)
    first = flow.add("t", n="first", name="first")
    middle = [flow.add("t", n=f"m{n}", name=f"m{n}", after=first) for n in range(width)]
    flow.add("t", n="last", name="last", after=middle)
    return flow


async def start(hand: Hand, flow: Workflow | Batch) -> int:
    return (await hand.flows.start(flow)).id


async def nothing_left(sql: asyncpg.Connection) -> bool:
    counts = [
        await sql.fetchval(f"select count(*) from pipeline.{table}")
        for table in ("job", "job_ended", "workflow", "workflow_job", "job_need")
    ]
    return counts == [0] * 5


async def test_a_job_runs_after_all_that_it_needs(hand: Hand) -> None:
    flow = await start(hand, diamond())
    assert await hand.states(flow) == {"top": "ready", "left": "waiting", "right": "waiting", "bottom": "waiting"}
    await hand.end(await hand.take())
    await hand.resolve()
    left, right = await hand.take()
    await hand.end_one(left)
    await hand.resolve()
    assert await hand.take() == []
    await hand.end_one(right)
    await hand.resolve()
    await hand.end(await hand.take())
    await hand.resolve()
    assert hand.ran == ["top", "left", "right", "bottom"]
    status = await hand.status(flow)
    assert (status.state, status.total, status.pending, status.failed, status.ended) == ("finished", 4, 0, 0, True)


async def test_the_wait_of_a_job_begins_when_it_may_run(hand: Hand, sql: asyncpg.Connection) -> None:
    await start(hand, diamond())
    await sql.execute("update pipeline.job set run_at = run_at - interval '1 hour'")
    await hand.end(await hand.take())
    await hand.resolve()
    assert all(job.waited < 60 for job in await hand.take())


async def test_a_job_that_has_a_time_too_waits_for_both(hand: Hand, sql: asyncpg.Connection) -> None:
    jobs = [{"task": "a"}, {"task": "b", "after": ["a"], "run_at": "2999-01-01T00:00:00Z"}]
    flow = await sql.fetchval("select pipeline.start_workflow('timed', $1::jsonb)", json.dumps(jobs))
    await hand.run()
    assert await hand.states(flow) == {"a": "finished", "b": "delayed"}
    await sql.execute("update pipeline.job set run_at = now()")
    assert (await hand.jobs.promote(["default"]))[0] == 1
    await hand.run()
    assert (await hand.status(flow)).state == "finished"


async def test_a_wide_fan_is_released_in_steps_and_gathers_again(hand: Hand) -> None:
    flow = await start(hand, fan(20_000))
    await hand.end(await hand.take())
    assert await hand.resolve(edges=3_000) == 7
    while jobs := await hand.take(5_000):
        await hand.end(jobs)
        await hand.resolve()
    status = await hand.status(flow)
    assert (status.state, status.pending, len(hand.ran), hand.ran[-1]) == ("finished", 0, 20_002, "last")
    assert len(set(hand.ran)) == 20_002


async def test_a_chain_of_a_thousand_runs_in_its_order(hand: Hand) -> None:
    flow = Workflow("chain")
    before: Any = ()
    for n in range(1_000):
        before = flow.add("t", n=n, after=before)
    id_ = await start(hand, flow)
    await hand.run()
    assert hand.ran == [str(n) for n in range(1_000)]
    assert (await hand.status(id_)).state == "finished"


async def test_a_chain_of_a_thousand_is_cancelled_to_its_end(hand: Hand, sql: asyncpg.Connection) -> None:
    flow = Workflow("chain")
    before: Any = ()
    for n in range(1_000):
        before = flow.add("t", n=n, after=before)
    id_ = await start(hand, flow)
    await hand.run(lambda _job: "fail")
    status = await hand.status(id_)
    assert (hand.ran, status.state, status.failed, status.pending) == (["0"], "failed", 1_000, 0)
    assert await sql.fetchval("select count(*) from pipeline.job_archive where state = 'cancelled'") == 999


async def test_what_needs_a_failed_job_is_cancelled_and_says_why(hand: Hand, sql: asyncpg.Connection) -> None:
    flow = await start(hand, diamond())
    await hand.run(lambda job: "fail" if job.args["n"] == "left" else "finish")
    assert hand.ran == ["top", "left", "right"]
    status = await hand.status(flow)
    assert (status.state, status.failed) == ("failed", 2)
    failed, cancelled = await sql.fetch("select * from pipeline.job_archive where state <> 'finished' order by id")
    assert cancelled["state"] == "cancelled"
    assert cancelled["error"] == f"job {failed['id']} (left), which this one needs, has failed"


async def test_what_ignores_failures_runs_all_the_same_and_knows_them(hand: Hand) -> None:
    flow = await start(hand, diamond("ignore"))
    await hand.end(await hand.take(), result='{"rows": 3}')
    await hand.resolve()
    left, right = await hand.take()
    assert (await hand.flows.results(left)) == {"top": {"rows": 3}}
    await hand.end_one(left, "fail")
    await hand.end_one(right)
    await hand.resolve()
    [bottom] = await hand.take()
    results = await hand.flows.results(bottom)
    assert (results, results.failed) == ({"right": None}, {"left": left.id})
    await hand.end([bottom])
    await hand.resolve()
    status = await hand.status(flow)
    assert (status.state, status.failed, status.pending) == ("failed", 1, 0)


async def test_what_is_held_goes_on_once_the_failed_job_was_retried(hand: Hand, sql: asyncpg.Connection) -> None:
    flow = await start(hand, diamond("hold"))
    await hand.run(lambda job: "fail" if job.args["n"] == "left" else "finish")
    assert (await hand.states(flow))["bottom"] == "waiting"
    assert (await hand.status(flow)).ended is False
    failed = await sql.fetchval("select id from pipeline.job_archive where state = 'failed'")
    # it fails for good once more
    for step in ("fail", "finish"):
        assert await sql.fetchval("select pipeline.retry_jobs($1)", [failed]) == [failed]
        assert (await hand.status(flow)).failed == 0
        await hand.run(lambda _job, step=step: step)  # type: ignore[misc]
    assert hand.ran == ["top", "left", "right", "left", "left", "bottom"]
    status = await hand.status(flow)
    assert (status.state, status.failed, status.pending) == ("finished", 0, 0)


async def test_a_job_that_is_retried_before_its_failure_was_told_harms_nobody(
    hand: Hand, sql: asyncpg.Connection
) -> None:
    flow = await start(hand, diamond())
    [top] = await hand.take()
    await hand.end([top], "fail")
    await sql.fetchval("select pipeline.retry_jobs($1)", [top.id])
    await hand.run()
    assert hand.ran == ["top", "top", "left", "right", "bottom"]
    assert (await hand.status(flow)).state == "finished"


async def test_an_old_failure_does_not_overtake_a_retry_that_has_not_committed(
    hand: Hand, sql: asyncpg.Connection
) -> None:
    flow = await start(hand, diamond())
    [top] = await hand.take()
    await hand.end([top], "fail")
    async with sql.transaction():
        await sql.fetchval("select pipeline.retry_jobs($1)", [top.id])
        await hand.resolve()  # the workflow is locked: left for later
        assert (await hand.states(flow))["left"] == "waiting"
    await hand.run()
    assert (await hand.status(flow)).state == "finished"


async def test_a_need_that_was_met_by_a_failure_is_not_met_again_by_its_retry(
    hand: Hand, sql: asyncpg.Connection
) -> None:
    flow = Workflow("two", on_failure="ignore")
    flow.add("t", n="both", name="both", after=["one", "other"])
    for name in ("one", "other"):
        flow.add("t", n=name, name=name)
    id_ = await start(hand, flow)
    one, other = await hand.take()
    await hand.end_one(one, "fail")
    await hand.resolve()
    await sql.fetchval("select pipeline.retry_jobs($1)", [one.id])
    await hand.end(await hand.take())
    await hand.resolve()
    assert await hand.take() == []
    await hand.end([other])
    await hand.run()
    assert hand.ran == ["one", "other", "one", "both"]
    assert (await hand.status(id_)).state == "finished"


async def test_a_whole_workflow_can_be_retried(hand: Hand) -> None:
    flow = await start(hand, diamond())
    await hand.run(lambda job: "fail" if job.args["n"] == "top" else "finish")
    assert (await hand.status(flow)).failed == 4
    assert await hand.flows.retry(flow) == 4
    assert await hand.states(flow) == {"top": "ready", "left": "waiting", "right": "waiting", "bottom": "waiting"}
    await hand.run()
    status = await hand.status(flow)
    assert (status.state, status.failed, status.pending) == ("finished", 0, 0)
    assert hand.ran == ["top", "top", "left", "right", "bottom"]


async def test_a_dead_letter_of_a_lost_worker_counts_as_a_failure(hand: Hand, sql: asyncpg.Connection) -> None:
    flow = await start(hand, diamond())
    await sql.execute("update pipeline.job set max_attempts = 1, lost = 1 where needs = 0")
    [job] = await hand.take()
    assert await hand.jobs.begin(job, hand.worker)
    await lose(sql, hand.worker)
    assert await hand.jobs.rescue() == (0, 1)
    await hand.resolve()
    status = await hand.status(flow)
    assert (status.state, status.failed, status.pending) == ("failed", 4, 0)


async def test_a_job_that_was_cancelled_by_name_takes_those_that_need_it_along(
    hand: Hand, sql: asyncpg.Connection
) -> None:
    flow = await start(hand, diamond())
    ids = {job.name: job.id for job in await hand.flows.jobs(flow)}
    await sql.fetchval("select pipeline.cancel_jobs($1)", [ids["right"]])
    await hand.run()
    assert hand.ran == ["top", "left"]
    assert (await hand.states(flow))["bottom"] == "cancelled"


@pytest.mark.parametrize("on_failure", ["cancel", "ignore", "hold"])
async def test_cancelling_a_workflow_ends_all_of_it_in_steps(hand: Hand, on_failure: OnFailure) -> None:
    flow = await start(hand, fan(50, on_failure))
    await hand.end(await hand.take())
    await hand.resolve()
    running = await hand.take(10)
    assert await hand.flows.cancel(flow)
    assert await hand.resolve(edges=20) >= 3
    status = await hand.status(flow)
    assert (status.state, status.pending, status.failed) == ("cancelled", 0, 51)
    assert (await hand.jobs.write(hand.worker, [])).refused == 0
    assert await hand.take() == []
    assert len(running) == 10
    assert not await hand.flows.cancel(flow)


async def test_nothing_of_a_workflow_begins_any_more_while_it_is_cancelled(hand: Hand) -> None:
    before, flow = await start(hand, fan(20)), await start(hand, fan(5, "ignore"))
    for job in reversed(await hand.take()):  # what needs the second is told first,
        await hand.end_one(job)
    for id_ in (before, flow):  # and the jobs of the first are cancelled first
        assert await hand.flows.cancel(id_)
    for _ in range(8):
        await hand.flows.resolve(edges=6)
        assert await hand.take() == []
    await hand.resolve()
    assert (await hand.status(flow)).state == "cancelled"


async def test_a_workflow_in_a_transaction_that_is_rolled_back_never_was(
    hand: Hand, sql: asyncpg.Connection
) -> None:
    transaction = sql.transaction()
    await transaction.start()
    await hand.flows.start(diamond(), conn=sql)
    await transaction.rollback()
    assert await nothing_left(sql)


async def test_a_workflow_that_is_refused_half_way_leaves_nothing(hand: Hand, sql: asyncpg.Connection) -> None:
    flow = diamond()
    flow.add("t", name="too long", key="k" * 201)
    with pytest.raises(QueryFailed, match="200 characters"):
        await hand.flows.start(flow)
    assert await nothing_left(sql)


async def test_a_job_that_is_retried_while_its_workflow_is_cancelled_is_cancelled_again(
    hand: Hand, sql: asyncpg.Connection
) -> None:
    flow = await start(hand, diamond())
    [job] = await hand.take()
    await hand.end([job], "fail")
    assert await hand.flows.cancel(flow)
    assert await sql.fetchval("select pipeline.retry_jobs($1)", [job.id]) == [job.id]
    assert (await hand.status(flow)).state == "cancelling"
    await hand.resolve()
    assert (await hand.status(flow)).state == "cancelled"
    assert set((await hand.states(flow)).values()) == {"cancelled"}
    assert await hand.take() == []


async def test_ten_thousand_jobs_with_fifty_thousand_needs_are_started_at_once(
    hand: Hand, sql: asyncpg.Connection
) -> None:
    flow = Workflow("large")
    for n in range(10_000):
        flow.add("t", n=n, name=str(n), after=[str(other) for other in range(max(0, n - 5), n)])
    began = time.monotonic()
    await start(hand, flow)
    assert time.monotonic() - began < 20  # alone 1.5 s on two cores
    assert await sql.fetchval("select count(*) from pipeline.job_need") == 49_985


async def test_a_resolver_that_dies_half_way_has_done_nothing(
    hand: Hand, dsn: str, sql: asyncpg.Connection
) -> None:
    flow = await start(hand, fan(100))
    await hand.end(await hand.take(), result="7")
    blocker = sql.transaction()
    await blocker.start()
    await sql.execute("select from pipeline.job order by id desc limit 50 for update")
    victim = await asyncpg.connect(dsn)
    pid = victim.get_server_pid()
    dying = asyncio.create_task(victim.fetch(statement("workflows/resolve"), 0, 1000, 5000))
    await eventually(
        lambda: sql.fetchval("select wait_event_type = 'Lock' from pg_stat_activity where pid = $1", pid),
        why="the resolver waiting in the middle",
    )
    await sql.fetchval("select pg_terminate_backend($1)", pid)
    with pytest.raises(asyncpg.PostgresError):
        await dying
    await blocker.rollback()
    status = await hand.status(flow)
    assert (status.pending, await sql.fetchval("select count(*) from pipeline.job_ended")) == (102, 1)
    assert await sql.fetchval("select count(*) from pipeline.job_need where met") == 0
    assert await hand.take() == []
    await hand.run()
    assert len(hand.ran) == len(set(hand.ran)) == 102
    assert (await hand.status(flow)).state == "finished"


async def test_only_one_resolver_is_at_work(hand: Hand, sql: asyncpg.Connection) -> None:
    async with sql.transaction():
        await sql.fetch(statement("workflows/resolve"), 0, 10, 10)
        assert await hand.flows.resolve() is None
    assert await hand.flows.resolve() is not None


async def test_ending_a_job_costs_the_same_for_one_dependent_as_for_ten_thousand(
    hand: Hand, dsn: str, sql: asyncpg.Connection
) -> None:
    costs = []
    for width in (1, 10_000):
        await start(hand, fan(width))
    await sql.execute("vacuum analyze")
    for _ in range(2):
        [job] = await hand.take(1)
        connection = await asyncpg.connect(dsn, server_settings=JOB_SETTINGS)
        async with connection.transaction():
            await connection.fetch(
                statement("jobs/finish"),
                [job.id], [job.lease], hand.worker, ["finished"], [None], [None], [0.0], [1.0], [job.lease],
            )  # fmt: skip
            rows = await connection.fetch(
                """
                select relname, seq_tup_read, idx_tup_fetch, n_tup_ins, n_tup_upd, n_tup_del,
                    pg_stat_get_xact_blocks_fetched(relid) as pages
                from pg_stat_xact_user_tables where schemaname = 'pipeline' order by relname
                """
            )
        await connection.close()
        touched = {row["relname"]: tuple(row)[1:] for row in rows if any(tuple(row)[1:])}
        costs.append(touched)
    assert {"job", "lease", "job_ended"} < set(costs[0])
    assert not {"job_need", "workflow_job", "workflow"} & set(costs[1])
    tuples = [{table: counts[:5] for table, counts in cost.items()} for cost in costs]
    assert tuples[0] == tuples[1]
    assert sum(cost[5] for cost in costs[1].values()) <= sum(cost[5] for cost in costs[0].values()) + 2


async def test_jobs_outside_a_workflow_leave_no_note(hand: Hand, sql: asyncpg.Connection) -> None:
    await hand.jobs.enqueue("t", {})
    await hand.end(await hand.take())
    assert await sql.fetchval("select count(*) from pipeline.job_archive") == 1
    assert await sql.fetchval("select count(*) from pipeline.job_ended") == 0


async def test_notes_are_left_in_every_partition_of_the_archive(hand: Hand, sql: asyncpg.Connection) -> None:
    await hand.jobs.maintain_archive()
    flow = await start(hand, diamond())
    await hand.run()
    assert await sql.fetchval("select count(*) from pipeline.job_archive_default") == 0
    assert (await hand.status(flow)).state == "finished"


async def test_a_batch_calls_back_after_all_have_ended_with_results_and_failures(hand: Hand) -> None:
    flow = await start(hand, Batch([("t", {"n": n}) for n in range(5)], then=("t", {"n": "then"})))
    jobs = await hand.take()
    for job in jobs[:-1]:
        await hand.end_one(job, "fail" if job.args["n"] == 2 else "finish")
    await hand.end(jobs[-1:], result="1")
    await hand.resolve()
    [callback] = await hand.take()
    results = await hand.flows.results(callback)
    assert list(results) == ["1", "2", "4", "5"]
    assert results["5"] == 1
    assert results.failed == {"3": jobs[2].id}
    await hand.end([callback])
    await hand.resolve()
    assert (await hand.status(flow)).state == "failed"


async def test_workflows_of_long_ago_are_pruned_and_late_notes_of_them_too(
    hand: Hand, sql: asyncpg.Connection
) -> None:
    old, new = await start(hand, diamond()), await start(hand, diamond())
    await hand.run()
    await sql.execute("update pipeline.workflow set finished_at = now() - interval '8 days' where id = $1", old)
    assert await hand.flows.prune() == 1
    assert await hand.flows.prune() == 0
    assert await hand.flows.get(old) is None
    assert (await hand.status(new)).state == "finished"
    assert await sql.fetchval("select count(*) from pipeline.job_need") == 4
    await sql.execute(
        "insert into pipeline.job_ended (job, workflow, state, finished_at) values (1, $1, 'failed', now())", old
    )
    await hand.resolve()
    assert await sql.fetchval("select count(*) from pipeline.job_ended") == 0


@pytest.mark.parametrize(
    ("jobs", "told"),
    [
        ([{"task": "a", "after": ["c"]}, {"task": "b", "after": ["a"]}, {"task": "c", "after": ["b"]}], "cycle: "),
        ([{"task": "a", "after": ["a"]}], "cycle: a needs a"),
        ([{"task": "a", "after": ["x"]}], "job a needs x, which is not in the workflow"),
        ([{"task": "a"}, {"task": "a"}], "two jobs of workflow w are named a"),
        ([], "has 0 jobs"),
        ({}, "JSON array"),
        ([3], "job number 1 of workflow w is no object"),
        ([{"task": "a", "aftr": []}], 'the field "aftr", which is not known'),
        ([{"name": "a"}], "needs the name of its task"),
        ([{"task": "a", "queue": "q" * 201}], "a job needs a queue"),
        ([{"task": "a", "args": []}], "must be a JSON object"),
        ([{"task": "a", "priority": 40000}], "out of range"),
        ([{"task": "a", "timeout": 0}], "cannot be meant"),
        ([{"task": "a", "on_failure": "explode"}], "cannot be meant"),
        ([{"task": "a", "after": "b"}], "cannot be meant"),
    ],
)
async def test_what_is_no_workflow_is_refused_in_sql_too(sql: asyncpg.Connection, jobs: Any, told: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match=told):
        await sql.fetchval("select pipeline.start_workflow('w', $1::jsonb)", json.dumps(jobs))
    assert await nothing_left(sql)


async def test_what_the_task_declares_holds_in_workflows_too(hand: Hand, sql: asyncpg.Connection) -> None:
    await sql.execute(
        "insert into pipeline.task (name, queue, max_attempts, key, expires)"
        " values ('t', 'other', 2, 'customer:{c}', '1 hour')"
    )
    jobs = [{"name": "a", "task": "u"}, {"name": "b", "task": "t", "args": {"c": 7}, "after": ["a"]}]
    await sql.fetchval("select pipeline.start_workflow('w', $1::jsonb)", json.dumps(jobs))
    assert await sql.fetchval("select expires_at from pipeline.job where task = 't'") is None
    await hand.run()
    row = await sql.fetchrow("select *, expires_at - run_at = '1 hour' as an_hour from pipeline.job")
    assert (row["queue"], row["max_attempts"], row["key"], row["an_hour"]) == ("other", 2, "customer:7", True)
    await hand.jobs.adopt()
    assert [job.args for job in (await hand.jobs.claim("other", 1, hand.worker)).jobs] == [{"c": 7}]
