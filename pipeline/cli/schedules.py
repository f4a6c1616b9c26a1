"""`pgreflex schedules`: jobs that come again and again. Times are UTC.

Owns: how schedules are shown. Knows nothing of how a run is made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import click
import msgspec

from pipeline.cli.flags import Verbs
from pipeline.cli.session import Session, pass_session
from pipeline.cli.words import moment, moment_option
from pipeline.db.schedules import Run, ScheduleRow, ScheduleStore

T = TypeVar("T")


@click.group(cls=Verbs, short_help="Jobs that come again and again.")
def schedules() -> None:
    """Look at schedules, pause them, and fill in their runs. They are made in code (@cron) or by SQL
    (pipeline.schedule).

    Example: pgreflex schedules list
    """


@schedules.command("list", short_help="All schedules and their next runs.")
@pass_session
def list_(session: Session) -> None:
    """List the schedules, when each runs next (UTC), and what is amiss.

    Example: pgreflex schedules list --json
    """
    found = _ask(session, lambda store: store.all())
    if session.json:
        session.print_json(found)
        return
    if not found:
        session.hint("There is no schedule. Make one with @cron, or with `select pipeline.schedule(...)`.")
        return
    session.print_table(["name", "cron", "zone", "next run", "state"], [_row(one) for one in found])
    for one in found:
        if one.problem is not None:
            session.hint(f"{one.name}: {one.problem}")
        elif one.stale:
            session.hint(f"{one.name}: no daemon has had it in its code for a day, so it does not run.")


@schedules.command(short_help="One schedule and its newest runs.")
@click.argument("name")
@click.option(
    "--runs", "limit", type=click.IntRange(0, 10_000), default=10, metavar="N", help="How many; default: 10."
)
@pass_session
def show(session: Session, name: str, *, limit: int) -> None:
    """Tell everything about the schedule NAME, with its newest runs.

    Example: pgreflex schedules show nightly --runs 30
    """

    async def both(store: ScheduleStore) -> tuple[ScheduleRow, list[Run]]:
        return await store.get(name), await store.runs(name, limit)

    one, runs = _ask(session, both)
    if session.json:
        session.print_json({"schedule": one, "runs": runs})
        return
    for label, value in _facts(one):
        session.print(f"{label:<10}  {value}")
    if runs:
        session.print("")
        session.print_table(
            ["scheduled for", "job added", "job", "state"],
            [[moment(run.at), moment(run.made_at), str(run.job or "-"), run.state] for run in runs],
        )


@schedules.command(short_help="No more runs until it is resumed.")
@click.argument("name")
@pass_session
def pause(session: Session, name: str) -> None:
    """Stop the schedule NAME. Jobs that it has added already run.

    Example: pgreflex schedules pause nightly
    """
    _ask(session, lambda store: store.pause(name))
    _done(session, "paused", name)


@schedules.command(short_help="Run again, from now on.")
@click.argument("name")
@pass_session
def resume(session: Session, name: str) -> None:
    """Let the schedule NAME run again. What the pause left out is not made up; `backfill` does that.

    Example: pgreflex schedules resume nightly
    """
    _ask(session, lambda store: store.resume(name))
    _done(session, "resumed", name)


@schedules.command("run-now", short_help="One run at once.")
@click.argument("name")
@pass_session
def run_now(session: Session, name: str) -> None:
    """Add a job of the schedule NAME now, also while it is paused. Prints the job's id.

    Example: pgreflex schedules run-now nightly
    """
    job = _ask(session, lambda store: store.run_now(name))
    if session.json:
        session.print_json({"job": job})
    else:
        session.print(str(job))


@schedules.command(short_help="Make the runs that a past span lacks.")
@click.argument("name")
@click.option(
    "--from",
    "start",
    required=True,
    callback=moment_option,
    metavar="TIME",
    help="First time; UTC if it names no zone.",
)
@click.option(
    "--until", callback=moment_option, metavar="TIME", help="Up to, but without this time; default: now."
)
@pass_session
def backfill(session: Session, name: str, *, start: float, until: float | None) -> None:
    """Add the jobs of the schedule NAME for the scheduled times of a past span that have had none. Doing it
    twice adds none twice.

    Example: pgreflex schedules backfill nightly --from 2026-11-01
    """
    filled = _ask(session, lambda store: store.backfill(name, start, until))
    if session.json:
        session.print_json(filled)
    else:
        session.print(f"made  {filled.made}")
        if filled.known:
            session.hint(f"{filled.known} more of these times have had their run already.")


def _ask(session: Session, question: Callable[[ScheduleStore], Awaitable[T]]) -> T:
    async def work() -> T:
        async with session.database() as db:
            return await question(ScheduleStore(db))

    return session.wait(work())


def _done(session: Session, what: str, name: str) -> None:
    if session.json:
        session.print_json({what: name})
    else:
        session.print(f"{what}  {name}")


def _state(one: ScheduleRow) -> str:
    if one.paused:
        return "paused"
    if one.stale:
        return "stale"
    return "ok" if one.problem is None else "problem"


def _row(one: ScheduleRow) -> list[str]:
    return [one.name, one.cron, one.timezone, moment(one.next_at), _state(one)]


def _facts(one: ScheduleRow) -> list[tuple[str, str]]:
    args = one.args if isinstance(one.args, str) else msgspec.json.encode(one.args).decode()
    policy = f"all, at most {one.max_missed}" if one.missed == "all" else one.missed
    return [
        ("name", one.name),
        ("state", _state(one) if one.problem is None else f"{_state(one)}: {one.problem}"),
        ("task", f"{one.task} {args}"),
        ("queue", one.queue or "the task's own"),
        ("priority", "the task's own" if one.priority is None else str(one.priority)),
        ("cron", f"{one.cron}  {one.timezone}"),
        ("missed", policy),
        ("skipped", f"{one.skipped} scheduled times got no run"),
        ("made by", one.source),
        ("last run", moment(one.last_at)),
        ("next run", moment(one.next_at)),
    ]
