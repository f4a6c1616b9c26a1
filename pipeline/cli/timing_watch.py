"""`pgreflex timings watch`: the greatest series, live.

Owns: how often it asks, and the picture on a terminal. How a line looks is in timing_lines.py.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click
import msgspec
from rich.live import Live
from rich.text import Text

from pipeline.cli import timing_lines as lines
from pipeline.cli.flags import Verb
from pipeline.cli.session import Session, pass_session
from pipeline.cli.timing_flags import BY, LABEL, QUERY, SOURCE, ask, greatest, over_option, width
from pipeline.cli.words import span_option
from pipeline.core.span import show_span
from pipeline.core.sparkline import BLOCKS
from pipeline.db.timing_view import OTHER, Labels, QueryRow, SeriesRow, TimingViews

STEPS = (5.0, 15.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0, 7_200.0, 43_200.0)
LAST_STEP = 86_400.0
SOONEST_SECONDS = 0.1


@click.command(cls=Verb, short_help="The greatest series, live.")
@click.option("--over", callback=over_option, default="5m", metavar="TIME", help="Which span; default: 5m.")
@BY
@SOURCE
@LABEL
@click.option("--limit", type=click.IntRange(1, 200), default=10, metavar="N", help="How many; default: 10.")
@click.option("--every", callback=span_option, default="2s", metavar="TIME", help="How often; default: 2s.")
@click.option("--times", type=click.IntRange(1), metavar="N", help="End after so many pictures.")
@pass_session
def watch(
    session: Session,
    *,
    over: float,
    by: str,
    source: str | None,
    labels: Labels,
    limit: int,
    every: float,
    times: int | None,
) -> None:
    """Show the greatest series, or with `--source query` the queries, again and again, each with a line of its p95
    over the span. Ctrl-C ends it. With --json it is one line each time.

    Example: pgreflex timings watch --source http --over 15m
    """
    if every < SOONEST_SECONDS:
        raise click.BadParameter("write 0.1 or more", param_hint="--every")

    async def work(views: TimingViews) -> None:
        with _screen(session) as update:
            seen = 0
            while times is None or seen < times:
                if seen:
                    await asyncio.sleep(every)
                found = await greatest(views, over, by, limit, source, labels)
                update(await _picture(session, views, found, over, by, labels))
                seen += 1

    ask(session, work)


async def _picture(
    session: Session,
    views: TimingViews,
    found: Sequence[SeriesRow | QueryRow],
    over: float,
    by: str,
    labels: Labels,
) -> list[str]:
    step = next((step for step in STEPS if over / step <= lines.SPARKS), LAST_STEP)
    histories = await views.history([_key(one, labels) for one in found], over, step) if found else []
    if session.json:
        told = [
            {**msgspec.to_builtins(one), "points": points} for one, points in zip(found, histories, strict=True)
        ]
        return [msgspec.json.encode({"at": time.time(), "over_seconds": over, "top": told}).decode()]
    title = f"{time.strftime('%H:%M:%S', time.gmtime())} UTC, the last {show_span(over)}, by {by}"
    if not found:
        return [title, "no timings"]
    p95s = [[point.p95_ms for point in points] for points in histories]
    return [title, *lines.watched(found, p95s, width(session), blocks=_can_draw())]


def _key(one: SeriesRow | QueryRow, labels: Labels) -> tuple[str, Labels]:
    """What to ask the history of."""
    if isinstance(one, SeriesRow):
        return one.exactly, None
    if one.fingerprint == OTHER:
        return QUERY, {**(labels or {}), OTHER: "true"}
    return QUERY, {**(labels or {}), "fingerprint": one.fingerprint}


def _can_draw() -> bool:
    try:
        BLOCKS.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _screen(session: Session) -> Iterator[Callable[[list[str]], None]]:
    """Shows pictures: in place on a terminal, else one below the other."""
    if session.json or not sys.stdout.isatty():
        yield lambda picture: _append(session, picture)
        return
    with Live(console=session.out(), auto_refresh=False) as live:
        yield lambda picture: live.update(
            Text("\n".join(picture[: max(live.console.height - 1, 1)]), no_wrap=True, overflow="ellipsis"),
            refresh=True,
        )


def _append(session: Session, picture: list[str]) -> None:
    for line in picture if session.json else [*picture, ""]:
        session.print(line)
    sys.stdout.flush()
