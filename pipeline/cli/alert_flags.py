"""The flags that the verbs of `pgreflex alerts` share, and how they ask.

Owns: their spelling. Knows no verb.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import click

from pipeline.cli.session import Session
from pipeline.cli.words import span_option
from pipeline.db.alert_view import MOST, SEVERITIES, STATES, AlertViews, meant
from pipeline.db.connection import Database
from pipeline.db.job_view import VIEW_SETTINGS

T = TypeVar("T")


def choices(*known: str) -> Callable[[click.Context, click.Parameter, str | None], list[str] | None]:
    """Reads `firing,pending`."""

    def read(_context: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
        given = None if value is None else [one.strip() for one in value.split(",")]
        if given and (wrong := [one for one in given if one not in known]):
            raise click.BadParameter(f"{wrong[0] or value!r} is no {param.name}; there are {', '.join(known)}")
        return given

    return read


def over_option(context: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A span of time that is not empty."""
    over = span_option(context, param, value)
    if over is not None and over <= 0:
        raise click.BadParameter("the span is empty; write such as 1h or 7d")
    return over


STATE = click.option(
    "--state", callback=choices(*STATES), metavar="STATES", help="Only these: firing, pending, resolved."
)
SEVERITY = click.option(
    "--severity", callback=choices(*SEVERITIES), metavar="SEVERITIES", help="Only these: critical, warning, info."
)
RULE = click.option("--rule", metavar="RULE", help="Only of this rule.")


def over(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--over", callback=over_option, default=default, metavar="TIME", help=f"Which span; default: {default}."
    )


def limit(default: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--limit",
        type=click.IntRange(1, MOST),
        default=default,
        metavar="N",
        help=f"How many; default: {default}.",
    )


def ask(session: Session, question: Callable[[AlertViews], Awaitable[T]]) -> T:
    """Ask the database one thing."""

    async def work() -> T:
        async with session.database(VIEW_SETTINGS) as db:
            return await question(AlertViews(db))

    return session.wait(work())


def change(session: Session, work: Callable[[Database], Awaitable[T]]) -> T:
    """Change one thing. What the database refuses as not meant is a mistake of the user's."""

    async def done() -> T:
        async with session.database() as db:
            with meant():
                return await work(db)

    return session.wait(done())


def tell(session: Session, lines: Sequence[str]) -> None:
    for line in lines:
        session.print(line)
