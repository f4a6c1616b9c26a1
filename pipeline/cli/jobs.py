"""`pgreflex jobs`: looking at jobs. Times are UTC.

Owns: how jobs are shown. Knows nothing of how they are found; retry and cancel are in bulk.py.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click
import msgspec

from pipeline.cli.bulk import cancel, retry
from pipeline.cli.flags import Verbs
from pipeline.cli.session import Session, pass_session
from pipeline.cli.words import facts, first_line, moment, optional, span_option
from pipeline.core.job_filter import ENDED, parse_filter
from pipeline.core.span import show_span
from pipeline.db.connection import Database
from pipeline.db.job_admin import Ended, JobAdmin
from pipeline.db.job_view import VIEW_SETTINGS, JobRow, JobView, JobViews, LogLine, no_job
from pipeline.errors import Busy, JobFailed

T = TypeVar("T")
POLL_SECONDS = 0.25
LOG_PAGE = 1_000


@click.group(cls=Verbs, short_help="Look at jobs, retry and cancel them.")
def jobs() -> None:
    """Look at jobs, retry and cancel them. A job has ended as finished, failed, cancelled or expired; until
    then it is blocked, delayed, ready or running.

    Example: pgreflex jobs list --where 'state:failed queue:mail since:2h'
    """


@jobs.command("list", short_help="The newest jobs that a filter means.")
@click.option("--where", "text", metavar="FILTER", default="", help="Which jobs; default: all.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, metavar="N", help="How many; default: 50.")
@click.option("--after", type=int, metavar="ID", help="Go on below this id: the last of the page before.")
@pass_session
def list_(session: Session, text: str, *, limit: int, after: int | None) -> None:
    """List jobs, the newest first.

    \b
    FILTER is made of:
      state:failed       blocked, delayed, ready, running,
                         finished, failed, cancelled, expired
      queue:mail         the * stands for any text: queue:mail*
      task:shop.*        commas mean any of them: task:a,b
      key:customer:7
      since:2h           added, or ended, in the last 2 hours
      error:"no route"   a part of the error

    state:failed, state:running and since: are quick. Any other filter that few jobs match reads all of them,
    from the newest on, and is given up when that takes longer than 20 s.

    Example: pgreflex jobs list --where 'state:failed task:shop.*'
    """
    wanted = parse_filter(text)
    found = _ask(session, lambda views, _db: views.page(wanted, limit, after=after))
    if session.json:
        session.print_json(found)
        return
    if not found:
        session.hint("No job matches." if text or after else "There is no job.")
        return
    session.print_table(["id", "state", "task", "queue", "attempt", "at", "error"], [_row(job) for job in found])
    if len(found) == limit:
        session.hint(f"There may be more: --after {found[-1].id}")


@jobs.command(short_help="Everything about one job.")
@click.argument("job", type=int, metavar="ID")
@pass_session
def show(session: Session, job: int) -> None:
    """Tell everything about the job ID: its state, arguments, error, progress, result, log.

    Arguments that the task redacts are not shown. Example: pgreflex jobs show 42
    """

    async def both(views: JobViews, _db: Database) -> tuple[JobView, list[LogLine]]:
        return await views.show(job), await views.log(job)

    one, lines = _ask(session, both)
    if session.json:
        session.print_json({**msgspec.to_builtins(one), "log": lines})
        return
    for line in facts(_facts(one)):
        session.print(line)
    if one.error:
        session.print(f"\n{'error of the attempt before' if one.state not in ENDED else 'error'}:\n{one.error}")
    if lines:
        session.print("\nlog:")
    for entry in lines:
        session.print(_line(entry))
    if len(lines) == LOG_PAGE:
        session.hint(f"These are the first {LOG_PAGE:,} lines: `pgreflex jobs log {job}` prints all.")


@jobs.command(short_help="What a job has logged.")
@click.argument("job", type=int, metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@pass_session
def log(session: Session, job: int, *, follow: bool) -> None:
    """Print what the job ID has logged by job.log(). With --json one object a line.

    Example: pgreflex jobs log 42 --follow
    """

    async def print_all(views: JobViews, _db: Database) -> None:
        known = 0
        while True:
            ended = (await views.show(job)).state in ENDED  # asked first: what it logs last is read after
            while lines := await views.log(job, known, LOG_PAGE):
                known += len(lines)
                for entry in lines:
                    session.print(msgspec.json.encode(entry).decode() if session.json else _line(entry))
            sys.stdout.flush()
            if ended or not follow:
                return
            await asyncio.sleep(POLL_SECONDS)

    _ask(session, print_all)


@jobs.command(short_help="Wait until a job has ended; print its result.")
@click.argument("job", type=int, metavar="ID")
@click.option("--timeout", callback=span_option, metavar="TIME", help="Give up after: 90s, 5m, 1h30m.")
@pass_session
def wait(session: Session, job: int, *, timeout: float | None) -> None:
    """Wait until the job ID has ended and print its result as JSON. Exits with 1 unless it has finished.

    Example: pgreflex jobs wait 42 --timeout 5m
    """

    async def ended(_views: JobViews, db: Database) -> Ended:
        admin = JobAdmin(db)
        deadline = None if timeout is None else time.monotonic() + timeout
        while await admin.stage(job) is not None:
            if deadline is not None and time.monotonic() >= deadline:
                raise Busy(
                    f"job {job} has not ended within {show_span(timeout or 0)}",
                    hint=f"See `pgreflex jobs show {job}`.",
                )
            await asyncio.sleep(POLL_SECONDS)
        found = await admin.ended(job)
        if found is None:
            raise no_job(job)
        return found

    found = _ask(session, ended)
    if found.state != "finished":
        raise JobFailed(
            f"job {job} has {found.state}: {first_line(found.error, 200)}", found.state,
            hint=f"See `pgreflex jobs show {job}`.",
        )  # fmt: skip
    session.print_json(found.result)


jobs.add_command(retry)
jobs.add_command(cancel)


def _ask(session: Session, question: Callable[[JobViews, Database], Awaitable[T]]) -> T:
    async def work() -> T:
        async with session.database(VIEW_SETTINGS) as db:
            return await question(JobViews(db), db)

    return session.wait(work())


def _row(job: JobRow) -> list[str]:
    at = job.finished_at or (job.run_at if job.state == "delayed" else job.created_at)
    return [
        str(job.id), job.state, job.task, job.queue, f"{job.attempt}/{job.max_attempts}", moment(at),
        first_line(job.error),
    ]  # fmt: skip


def _line(entry: LogLine) -> str:
    return f"{moment(entry.at)}  {entry.attempt}  {entry.level:<7}  {entry.message}"


def _facts(one: JobView) -> list[tuple[str, str]]:
    told: list[tuple[str, str | None]] = [
        ("id", str(one.id)),
        ("state", one.state if not one.needs else f"{one.state}, waits for {one.needs} other jobs"),
        ("task", one.task),
        ("args", one.args if isinstance(one.args, str) else _json(one.args)),
        ("queue", one.queue),
        ("priority", str(one.priority)),
        ("key", one.key or None),
        ("attempt", f"{one.attempt} of {one.max_attempts}"),
        ("lost", f"{one.lost} times with its worker" if one.lost else None),
        ("workflow", None if one.workflow is None else str(one.workflow)),
        ("timeout", None if one.timeout is None else show_span(one.timeout)),
        ("added", moment(one.created_at)),
        ("runs from", moment(one.run_at)),
        ("expires", None if one.expires_at is None else moment(one.expires_at)),
        ("began", None if one.started_at is None else moment(one.started_at)),
        ("ended", None if one.finished_at is None else moment(one.finished_at)),
        ("took", None if one.ms is None else show_span(one.ms / 1000)),
        ("worker", _worker(one)),
        ("progress", _progress(one)),
        ("result", _json(one.result) if one.state == "finished" else None),
    ]
    return [(label, value) for label, value in told if value is not None]


def _worker(one: JobView) -> str | None:
    if one.worker is None:
        return None
    if one.lease is None:
        return one.worker
    return f"{one.worker}, lease {one.lease}, seen {show_span(one.worker_seen_ago or 0)} ago"


def _progress(one: JobView) -> str | None:
    if one.done is None:
        return None
    of = "" if one.total is None else f" of {one.total:g}"
    return f"{one.done:g}{of}  {optional(one.note)}" if one.note else f"{one.done:g}{of}"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
