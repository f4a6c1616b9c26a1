"""`pgreflex queues`: how queues stand, pausing, draining, limits.

Owns: how they are shown, and the words for limits. What a limit does is told in docs/jobs.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from pipeline.cli.flags import Verbs
from pipeline.cli.session import Session, pass_session
from pipeline.cli.words import counted, optional
from pipeline.core.limits import MOST, Rate
from pipeline.core.span import show_span
from pipeline.db.queue_admin import QueueAdmin, QueueRow

T = TypeVar("T")
POLL_SECONDS = 0.5


@click.group(cls=Verbs, short_help="Pause, drain and limit queues.")
def queues() -> None:
    """Look at queues, pause and drain them, and set their limits, while workers run. All workers follow within
    a second.

    Example: pgreflex queues pause mail
    """


@queues.command("list", short_help="All queues and how they stand.")
@pass_session
def list_(session: Session) -> None:
    """List the queues: their state, jobs, how long the first one in line has waited, and what is set.

    Example: pgreflex queues list --json
    """
    found = _ask(session, lambda admin: admin.all())
    if session.json:
        session.print_json(found)
        return
    if not found:
        session.hint("No queue has had a job. Add one with `pgreflex enqueue`.")
        return
    session.print_table(
        ["queue", "state", "ready", "delayed", "running", "failed 24h", "oldest"], [_row(one) for one in found]
    )
    limited = [one for one in found if one.concurrency or one.rate or one.slots or one.weight != 1]
    if limited:
        session.print("")
        session.print_table(
            ["queue", "concurrency", "rate", "slots", "weight"],
            [_limits(one) for one in limited],
        )


@queues.command(short_help="Hand out no more jobs of a queue.")
@click.argument("name")
@pass_session
def pause(session: Session, name: str) -> None:
    """Hand out no more jobs of the queue NAME. Those that run go on; jobs can still be added.

    Example: pgreflex queues pause mail
    """
    _change(session, "paused", name, lambda admin: admin.pause(name))


@queues.command(short_help="Hand out the jobs of a queue again.")
@click.argument("name")
@pass_session
def resume(session: Session, name: str) -> None:
    """Hand out the jobs of the queue NAME again, after a pause or a drain.

    Example: pgreflex queues resume mail
    """
    _change(session, "resumed", name, lambda admin: admin.resume(name))


@queues.command(short_help="Hand out what is in line, and no more.")
@click.argument("name")
@click.option("--wait", is_flag=True, help="Until these jobs have ended.")
@pass_session
def drain(session: Session, name: str, *, wait: bool) -> None:
    """Hand out the jobs of the queue NAME that are in line now, and none that comes later, also no retry of
    them. It stays so until it is resumed.

    Example: pgreflex queues drain mail --wait
    """

    async def drained(admin: QueueAdmin) -> bool:
        told = None
        while left := await admin.left(name):
            if left != told:
                session.hint(f"{counted(left)} left")
            told = left
            await asyncio.sleep(POLL_SECONDS)
        return left is not None

    _change(session, "draining", name, lambda admin: admin.drain(name), quiet=wait)
    if wait:
        if not _ask(session, drained):
            session.hint(f"{name} was resumed or paused meanwhile.")
            return
        _told(session, "drained", name)


@queues.command("set", short_help="Limits and weight of a queue.")
@click.argument("name")
@click.option(
    "--concurrency",
    metavar="N",
    callback=lambda _c, _p, value: _number(value),
    help="Jobs at once, over all workers.",
)
@click.option(
    "--rate",
    metavar="RATE",
    callback=lambda _c, _p, value: _read_rate(value),
    help="Jobs that may begin: 100/min, 5/s, 20/90s.",
)
@click.option(
    "--slots",
    metavar="N",
    callback=lambda _c, _p, value: _number(value),
    help="Jobs at once in one worker, in place of its own setting.",
)
@click.option(
    "--weight",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Share of a worker whose places all queues share; 1.",
)
@pass_session
def set_(
    session: Session,
    name: str,
    *,
    concurrency: int | None,
    rate: Rate | int | None,
    slots: int | None,
    weight: int | None,
) -> None:
    """Set what is given for the queue NAME and keep the rest; 0 or none takes a limit away.

    Example: pgreflex queues set mail --concurrency 5 --rate 100/min
    """
    if concurrency is None and rate is None and slots is None and weight is None:
        raise click.UsageError("nothing is given to set", ctx=click.get_current_context())
    _change(
        session, "set", name,
        lambda admin: admin.set(name, concurrency=concurrency, rate=rate, slots=slots, weight=weight),
    )  # fmt: skip


@queues.command("limit-key", short_help="Limits of the keys of jobs.")
@click.argument("name", required=False)
@click.option(
    "--concurrency",
    metavar="N",
    callback=lambda _c, _p, value: _number(value),
    help="Jobs of one key at once, over all workers.",
)
@click.option(
    "--rate",
    metavar="RATE",
    callback=lambda _c, _p, value: _read_rate(value),
    help="Jobs of one key that may begin: 10/min.",
)
@pass_session
def limit_key(session: Session, name: str | None, *, concurrency: int | None, rate: Rate | int | None) -> None:
    """Limit the jobs of each key that is NAME or begins with NAME and a colon; without a limit print what is
    set. 0 or none takes a limit away. What a task declares in code is set again when a worker starts.

    Example: pgreflex queues limit-key customer --concurrency 1
    """
    if name is not None and (concurrency is not None or rate is not None):
        _ask(session, lambda admin: admin.limit_key(name, concurrency=concurrency, rate=rate))
        _told(session, "limited", name)
        return
    found = [one for one in _ask(session, lambda admin: admin.key_limits()) if name in (None, one.name)]
    if session.json:
        session.print_json(found)
    elif found:
        session.print_table(
            ["key", "concurrency", "rate"],
            [[one.name, optional(one.concurrency), _rate(one.rate, one.rate_seconds)] for one in found],
        )
    else:
        session.hint("No key has a limit." if name is None else f"The keys of {name} have no limit.")


def _ask(session: Session, question: Callable[[QueueAdmin], Awaitable[T]]) -> T:
    async def work() -> T:
        async with session.database() as db:
            return await question(QueueAdmin(db))

    return session.wait(work())


def _change(
    session: Session, what: str, name: str, change: Callable[[QueueAdmin], Awaitable[None]], *, quiet: bool = False
) -> None:
    async def work(admin: QueueAdmin) -> bool:
        known = await admin.known(name)
        await change(admin)
        return known

    if not _ask(session, work):
        session.hint(f"No queue {name} has had a job yet; it will be so when it has one.")
    if not quiet:
        _told(session, what, name)


def _told(session: Session, what: str, name: str) -> None:
    if session.json:
        session.print_json({what: name})
    else:
        session.print(f"{what}  {name}")


def _number(value: str | None) -> int | None:
    """A whole number; 0 for `none`."""
    if value is None or value == "none":
        return None if value is None else 0
    if not value.isdecimal() or int(value) > MOST:
        raise click.BadParameter(f"{value} is no limit; write a whole number, 0 or none")
    return int(value)


def _read_rate(value: str | None) -> Rate | int | None:
    """A rate; 0 for `none` and `0`."""
    if value is None or value in ("none", "0"):
        return None if value is None else 0
    try:
        return Rate.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _row(one: QueueRow) -> list[str]:
    oldest = "-" if one.oldest is None else show_span(max(one.oldest, 0))
    return [one.queue, one.state, *map(str, (one.ready, one.delayed, one.running, one.failed)), oldest]


def _limits(one: QueueRow) -> list[str]:
    rate = _rate(one.rate, one.rate_seconds)
    return [one.queue, optional(one.concurrency), rate, optional(one.slots), str(one.weight)]


def _rate(limit: int | None, seconds: float | None) -> str:
    if limit is None or seconds is None:
        return "-"
    unit = {1.0: "s", 60.0: "min", 3600.0: "hour", 86_400.0: "day"}.get(seconds)
    return f"{limit}/{unit or f'{seconds:g}s'}"
