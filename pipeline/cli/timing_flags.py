"""The flags that the verbs of `pgreflex timings` share, and how they ask.

Owns: their spelling. Knows no verb.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import click

from pipeline.cli.session import Session
from pipeline.cli.words import span_option
from pipeline.db.job_view import VIEW_SETTINGS
from pipeline.db.timing_view import ORDERS, Labels, QueryRow, SeriesRow, TimingViews

T = TypeVar("T")
QUERY = "query"
NARROW = 80  # columns, where no terminal says how many there are
PIPED = 200  # columns of a text that goes to a file or a program
OLDEST_SECONDS = 400 * 86_400.0


def over_option(_context: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A span that timings are kept for."""
    over = span_option(_context, param, value)
    if over is not None and not 0 < over <= OLDEST_SECONDS:
        raise click.BadParameter("timings are kept for 400 days; write such as 5m, 1h or 30d")
    return over


def labels_option(
    _context: click.Context, _param: click.Parameter, value: tuple[str, ...]
) -> dict[str, str] | None:
    """`region=eu` as labels."""
    pairs = [one.partition("=") for one in value]
    if wrong := [name for name, sign, _ in pairs if not sign or not name]:
        raise click.BadParameter(f"{wrong[0] or '='} is no label; write such as region=eu")
    return {name: text for name, _, text in pairs} or None


OVER = click.option("--over", callback=over_option, default="1h", metavar="TIME", help="Which span; default: 1h.")
BY = click.option("--by", type=click.Choice(ORDERS), default="total", help="The order; default: total time.")
SOURCE = click.option(
    "--source", metavar="NAME", help="One of table, query, span, sql, http, job, pool; query tells the texts."
)
LABEL = click.option(
    "--label", "labels", callback=labels_option, multiple=True, metavar="KEY=VALUE", help="Only with this label."
)
LIMIT = click.option(
    "--limit", type=click.IntRange(1, 10_000), default=20, metavar="N", help="How many; default: 20."
)


def ask(session: Session, question: Callable[[TimingViews], Awaitable[T]]) -> T:
    """Ask the database one thing."""

    async def work() -> T:
        async with session.database(VIEW_SETTINGS) as db:
            return await question(TimingViews(db))

    return session.wait(work())


async def greatest(
    views: TimingViews, over: float, by: str, limit: int, source: str | None, labels: Labels
) -> Sequence[SeriesRow | QueryRow]:
    """The queries with their texts where the source is `query`, else series."""
    if source == QUERY:
        return await views.slow_queries(over, by, limit, labels=labels)
    return await views.top_series(over, by, limit, source=source, labels=labels)


def width(session: Session) -> int:
    """How many columns a line may take."""
    console = session.out()
    return max(console.width, NARROW // 2) if console.file.isatty() else PIPED
