"""`pgreflex jobs retry` and `cancel`: of some jobs by their ids, or of all that a filter means.

Owns: that it is said how many before anything is done, batches, and what is told of an interrupted call.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence

import click
import msgspec

from pipeline.cli.flags import Verb
from pipeline.cli.session import Session, pass_session
from pipeline.cli.words import counted
from pipeline.core.job_filter import ENDED, LIVE, JobFilter, parse_filter
from pipeline.db.connection import Database
from pipeline.db.job_admin import JobAdmin
from pipeline.db.job_view import HIGHEST, VIEW_SETTINGS, JobViews
from pipeline.errors import TaskError, UsageError

BATCH = 1_000
RETRIED = ("failed", "cancelled", "expired", "delayed")
MOST_EXPLAINED = 5

Step = Callable[[Sequence[int]], Awaitable[list[int]]]


class Verdict(msgspec.Struct, frozen=True):
    """What is done to jobs. states: in which it can be; default: those of a filter that names none."""

    done: str
    states: tuple[str, ...]
    default: tuple[str, ...]


RETRY = Verdict("retried", RETRIED, ("failed",))
CANCEL = Verdict("cancelled", LIVE, LIVE)


@click.command(cls=Verb, short_help="Run jobs again.")
@click.argument("ids", nargs=-1, type=int, metavar="[ID]...")
@click.option("--where", "text", metavar="FILTER", help="All jobs of this filter; see `pgreflex jobs list -h`.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_session
def retry(session: Session, ids: tuple[int, ...], *, text: str | None, yes: bool) -> int:
    """Let jobs run again that have failed, were cancelled or have expired, and delayed ones at once. They keep
    their ids; their attempts begin anew.

    A FILTER without state: means failed jobs. They go in batches of 1,000, each a transaction of its own.

    Example: pgreflex jobs retry --where 'queue:mail since:1d'
    """
    return _run(session, ids, text, RETRY, lambda admin: admin.retry, ask=not yes)


@click.command(cls=Verb, short_help="End jobs that have not ended.")
@click.argument("ids", nargs=-1, type=int, metavar="[ID]...")
@click.option("--where", "text", metavar="FILTER", help="All jobs of this filter; see `pgreflex jobs list -h`.")
@click.option("--reason", metavar="TEXT", help="Why; kept as the error of the job.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_session
def cancel(session: Session, ids: tuple[int, ...], *, text: str | None, reason: str | None, yes: bool) -> int:
    """End jobs that have not ended, also those that run: their tasks are told to stop.

    They go in batches of 1,000, each a transaction of its own.

    Example: pgreflex jobs cancel 42 --reason 'sent by hand'
    """

    def step(admin: JobAdmin) -> Step:
        return lambda some: admin.cancel(some, reason)

    return _run(session, ids, text, CANCEL, step, ask=not yes)


def _run(
    session: Session,
    ids: tuple[int, ...],
    text: str | None,
    verdict: Verdict,
    step: Callable[[JobAdmin], Step],
    *,
    ask: bool,
) -> int:
    if bool(ids) == (text is not None):
        raise UsageError("name jobs by their ids, or by --where, and not both", hint="Such as 41 42 43.")
    if text is not None and not text.strip():
        raise UsageError("an empty filter would mean every job", hint="Name the states: --where state:...")
    if text is None:
        return _by_id(session, ids, verdict, step)
    wanted = parse_filter(text).limited_to(verdict.states, verdict.default, verdict.done)
    return _by_filter(session, wanted, verdict, step, ask=ask)


def _by_id(session: Session, ids: Sequence[int], verdict: Verdict, step: Callable[[JobAdmin], Step]) -> int:
    """Those that can be; then, as an error, why the others cannot."""

    async def work() -> tuple[list[int], list[str]]:
        async with session.database(VIEW_SETTINGS) as db:
            known = [id_ for id_ in ids if 0 < id_ <= HIGHEST]
            done = set(await step(JobAdmin(db))(known))
            left = [id_ for id_ in dict.fromkeys(ids) if id_ not in done]
            return sorted(done), [await _why(db, id_) for id_ in left[:MOST_EXPLAINED]] + [
                f"and {counted(len(left) - MOST_EXPLAINED, 'more job')}" for _ in left[MOST_EXPLAINED:][:1]
            ]

    done, refused = session.wait(work())
    if session.json and done:
        session.print_json({verdict.done: done})
    elif done:
        session.print(f"{verdict.done}  {' '.join(map(str, done))}")
    if refused:
        hint = f"Only jobs that are {', '.join(verdict.states)} can be {verdict.done}."
        raise TaskError("; ".join(refused), hint=hint)
    return 0


async def _why(db: Database, id_: int) -> str:
    try:
        found = await JobViews(db).show(id_)
    except TaskError as error:
        return error.message
    return f"job {id_} has {found.state}" if found.state in ENDED else f"job {id_} is {found.state}"


def _by_filter(
    session: Session, wanted: JobFilter, verdict: Verdict, step: Callable[[JobAdmin], Step], *, ask: bool
) -> int:
    matched: list[int] = []
    done: list[int] = []

    async def find() -> None:
        async with session.database(VIEW_SETTINGS) as db:
            async for some in JobViews(db).walk(wanted):
                matched.extend(some)

    async def act() -> None:
        async with session.database() as db:
            for start in range(0, len(matched), BATCH):
                done.extend(await step(JobAdmin(db))(matched[start : start + BATCH]))

    session.wait(find())
    if not matched:
        session.hint("No job matches.")
    else:
        session.hint(f"{counted(len(matched))} match{'es' if len(matched) == 1 else ''}.")
        if ask and sys.stdin.isatty() and not click.confirm("Go on?", err=True):
            session.hint("Nothing was changed.")
            return 1
    try:
        session.wait(act())
    except (KeyboardInterrupt, asyncio.CancelledError):
        session.hint(
            f"Interrupted: {len(done):,} of {len(matched):,} were {verdict.done}; run it again for the rest."
        )
        raise
    if session.json:
        session.print_json({"matched": len(matched), verdict.done: len(done)})
    else:
        session.print(f"{verdict.done}  {len(done)}")
    if len(done) < len(matched):
        session.hint(f"{counted(len(matched) - len(done))} had changed meanwhile.")
    return 0
