"""`pgreflex workflows`: what it shows, does and refuses."""

from __future__ import annotations

import json

import asyncpg
import pytest

from pipeline.cli.workflows import workflows
from pipeline.core.workflow import Workflow
from tests.cli.conftest import Cli, assert_explained
from tests.workflow_kit import by_hand


async def made(dsn: str) -> tuple[int, int]:
    """One workflow that has failed in part, and one that has not begun."""
    async with by_hand(dsn) as hand:
        failed = Workflow("nightly [import]")
        first = failed.add("shop.tasks.extract", n="extract", name="extract")
        failed.add("shop.tasks.load", n="load", name="load", after=first)
        one = (await hand.flows.start(failed)).id
        await hand.run(lambda _job: "fail")
        waiting = Workflow("waiting")
        before = [waiting.add("t", name=str(n)) for n in range(40)]
        waiting.add("t", name="last", after=before)
        return one, (await hand.flows.start(waiting)).id


@pytest.mark.parametrize("verb", list(workflows.commands))
async def test_every_help_fits_80_columns_and_has_an_example(cli: Cli, verb: str) -> None:
    result = await cli("workflows", verb, "-h")
    assert result.status == 0
    assert max(map(len, result.out.splitlines())) <= 80
    assert f"Example: pgreflex workflows {verb}" in " ".join(result.out.split())


async def test_workflows_are_listed(cli: Cli, dsn: str) -> None:
    assert "There is no such workflow" in (await cli("workflows", "list", "-d", dsn)).err
    one, two = await made(dsn)
    result = await cli("workflows", "list", "-d", dsn)
    lines = [line.split() for line in result.out.splitlines()]
    assert lines[0] == ["id", "name", "state", "jobs", "ended", "failed", "started"]
    assert [line[:-2] for line in lines[1:]] == [
        [str(two), "waiting", "running", "41", "0", "0"],
        [str(one), "nightly", "[import]", "failed", "2", "2", "2"],
    ]
    assert max(map(len, result.out.splitlines())) <= 80
    told = json.loads((await cli("workflows", "list", "--state", "failed", "--json", "-d", dsn)).out)
    assert [(flow["id"], flow["failed"]) for flow in told] == [(one, 2)]


async def test_a_workflow_is_shown_with_its_jobs_and_why_they_did_not_finish(cli: Cli, dsn: str) -> None:
    one, two = await made(dsn)
    result = await cli("workflows", "show", str(one), "-d", dsn)
    lines = [line.split() for line in result.out.splitlines()]
    assert ["jobs", "2,", "of", "which", "0", "have", "not", "ended,", "and", "2", "did", "not", "finish"] in lines
    assert [line[1:] for line in lines[-2:]] == [
        ["extract", "shop.tasks.extract", "failed"],
        ["load", "shop.tasks.load", "cancelled"],
    ]
    assert "extract: boom" in result.err
    assert "(extract), which this one needs, has failed" in " ".join(result.err.split())
    assert max(map(len, result.out.splitlines())) <= 80
    told = json.loads((await cli("workflows", "show", str(two), "--jobs", "50", "--json", "-d", dsn)).out)
    assert (told["workflow"]["pending"], told["jobs"][-1]["needs"], len(told["jobs"])) == (41, 40, 41)
    assert "11 more jobs" in (await cli("workflows", "show", str(two), "-d", dsn)).err


async def test_a_workflow_is_cancelled_and_retried(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    one, two = await made(dsn)
    result = await cli("workflows", "cancel", str(two), "-d", dsn)
    assert result.out == f"cancelled  {two} waiting, 41 of 41 jobs did not finish\n"
    assert await sql.fetchval("select count(*) from pipeline.job") == 0
    assert (await cli("workflows", "retry", str(one), "-d", dsn)).out == "retried  2\n"
    assert await sql.fetchval("select count(*) from pipeline.job") == 2


async def test_mistakes_are_explained(cli: Cli, dsn: str) -> None:
    one, _two = await made(dsn)
    for verb in ("show", "cancel", "retry"):
        assert_explained(await cli("workflows", verb, "99", "-d", dsn), 2, "usage", "there is no workflow 99")
    ended = await cli("workflows", "cancel", str(one), "-d", dsn)
    assert_explained(ended, 2, "usage", f"workflow {one} has ended: it is failed")
