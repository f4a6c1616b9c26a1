"""`pgreflex workflows`: jobs of which some wait for others. Times are UTC.

Owns: how workflows are shown. Knows nothing of how one job's end reaches another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar, get_args

import click

from pipeline.cli.flags import Verbs
from pipeline.cli.session import Session, pass_session
from pipeline.core.workflow import WorkflowJob, WorkflowState, WorkflowStatus
from pipeline.db.workflows import WorkflowStore
from pipeline.errors import UsageError

T = TypeVar("T")
BUSY_SECONDS = 0.05


@click.group(cls=Verbs, short_help="Jobs of which some wait for others.")
def workflows() -> None:
    """Look at workflows, cancel them, and retry what has failed in them. They are started in code
    (client.start) or by SQL (pipeline.start_workflow).

    Example: pgreflex workflows list
    """


@workflows.command("list", short_help="The newest workflows.")
@click.option("--state", type=click.Choice(get_args(WorkflowState)), help="Only those in this state.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, metavar="N", help="How many; default: 20.")
@pass_session
def list_(session: Session, *, state: str | None, limit: int) -> None:
    """List the newest workflows, newest first: how many of their jobs have ended, and how.

    Example: pgreflex workflows list --state failed
    """
    found = _ask(session, lambda store: store.newest(state, limit))
    if session.json:
        session.print_json(found)
    elif not found:
        session.hint("There is no such workflow. Start one with `client.start(...)`.")
    else:
        session.print_table(
            ["id", "name", "state", "jobs", "ended", "failed", "started"], [_row(one) for one in found]
        )


@workflows.command(short_help="One workflow and its jobs.")
@click.argument("id_", metavar="ID", type=int)
@click.option(
    "--jobs", "limit", type=click.IntRange(0, 100_000), default=30, metavar="N", help="How many; default: 30."
)
@pass_session
def show(session: Session, id_: int, *, limit: int) -> None:
    """Tell how the workflow ID does. Of its jobs those come first that did not finish, then those that have
    not ended.

    Example: pgreflex workflows show 7 --jobs 100
    """

    async def both(store: WorkflowStore) -> tuple[WorkflowStatus, list[WorkflowJob]]:
        return await _get(store, id_), await store.jobs(id_, limit)

    one, jobs = _ask(session, both)
    if session.json:
        session.print_json({"workflow": one, "jobs": jobs})
        return
    for label, value in _facts(one):
        session.print(f"{label:<8}  {value}")
    if jobs:
        session.print("")
        session.print_table(["job", "name", "task", "state"], [_job(job) for job in jobs])
        for job in jobs:
            if job.error is not None:
                session.hint(f"{job.id} {job.name}: {job.error.partition(chr(10))[0]}")
        if len(jobs) < one.total:
            session.hint(f"{one.total - len(jobs)} more jobs; see --jobs.")


@workflows.command(short_help="End all jobs that have not ended.")
@click.argument("id_", metavar="ID", type=int)
@pass_session
def cancel(session: Session, id_: int) -> None:
    """End all jobs of the workflow ID that have not ended. Those that run are told to stop.

    Example: pgreflex workflows cancel 7
    """

    async def work(store: WorkflowStore) -> WorkflowStatus:
        before = await _get(store, id_)
        if not await store.cancel(id_):
            raise UsageError(f"workflow {id_} has ended: it is {before.state}", hint="There is nothing to cancel.")
        while not (now := await _get(store, id_)).ended:
            done = await store.resolve()
            if done is None or done.idle:  # a daemon is at it, too
                await asyncio.sleep(BUSY_SECONDS)
        return now

    _done(session, _ask(session, work))


@workflows.command(short_help="Run again what did not finish.")
@click.argument("id_", metavar="ID", type=int)
@pass_session
def retry(session: Session, id_: int) -> None:
    """Let all jobs of the workflow ID run again that failed, expired or were cancelled. They wait for one
    another as before. Prints how many there are.

    Example: pgreflex workflows retry 7
    """

    async def work(store: WorkflowStore) -> int:
        await _get(store, id_)
        return await store.retry(id_)

    count = _ask(session, work)
    if session.json:
        session.print_json({"retried": count})
    else:
        session.print(f"retried  {count}")


async def _get(store: WorkflowStore, id_: int) -> WorkflowStatus:
    found = await store.get(id_)
    if found is None:
        raise UsageError(f"there is no workflow {id_}", hint="See `pgreflex workflows list`.")
    return found


def _ask(session: Session, question: Callable[[WorkflowStore], Awaitable[T]]) -> T:
    async def work() -> T:
        async with session.database() as db:
            return await question(WorkflowStore(db))

    return session.wait(work())


def _done(session: Session, one: WorkflowStatus) -> None:
    if session.json:
        session.print_json(one)
    else:
        session.print(f"{one.state}  {one.id} {one.name}, {one.failed} of {one.total} jobs did not finish")


def _row(one: WorkflowStatus) -> list[str]:
    ended = one.total - one.pending
    return [
        str(one.id), one.name, one.state, str(one.total), str(ended), str(one.failed), _time(one.created_at),
    ]  # fmt: skip


def _facts(one: WorkflowStatus) -> list[tuple[str, str]]:
    return [
        ("name", one.name),
        ("state", one.state),
        ("jobs", f"{one.total}, of which {one.pending} have not ended, and {one.failed} did not finish"),
        ("started", _time(one.created_at)),
        ("ended", _time(one.finished_at)),
    ]


def _job(job: WorkflowJob) -> list[str]:
    state = f"waits for {job.needs}" if job.state == "waiting" else job.state
    return [str(job.id), job.name, job.task, state]


def _time(moment: float | None) -> str:
    return "-" if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")
