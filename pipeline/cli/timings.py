"""`pgreflex timings`: what took how long.

Owns: the verbs, and what a name or a fingerprint on the command line means. How it looks is in timing_lines.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from textwrap import wrap

import click
import msgspec

from pipeline.cli import plan_lines
from pipeline.cli import timing_lines as lines
from pipeline.cli.flags import Verbs
from pipeline.cli.session import Session, pass_session
from pipeline.cli.timing_flags import BY, LABEL, LIMIT, OLDEST_SECONDS, OVER, QUERY, SOURCE, ask, greatest, width
from pipeline.cli.timing_watch import watch
from pipeline.cli.words import counted
from pipeline.core.span import show_span
from pipeline.db.plans import PlanChange, StoredPlan
from pipeline.db.timing_view import Bucket, Known, Labels, QueryRow, SeriesRow, TimingViews, Totals
from pipeline.errors import UsageError

SPANS = (60.0, 300.0, 3_600.0, 86_400.0, 7 * 86_400.0, 30 * 86_400.0)
SETS = 10


@click.group(cls=Verbs, short_help="What took how long: percentiles, slow queries.")
def timings() -> None:
    """What took how long: percentiles of statements, queries, requests, jobs and your own spans. Read from
    tables, so no daemon has to run.

    Example: pgreflex timings top --source query --over 24h
    """


@timings.command(short_help="The series or queries that took the most.")
@OVER
@BY
@SOURCE
@LABEL
@LIMIT
@pass_session
def top(session: Session, *, over: float, by: str, source: str | None, labels: Labels, limit: int) -> None:
    """List the series that took the most time, or with `--source query` the queries with their texts.

    Example: pgreflex timings top --source query --by p99 --over 24h
    """

    async def work(views: TimingViews) -> tuple[Sequence[SeriesRow | QueryRow], list[Known]]:
        found = await greatest(views, over, by, limit, source, labels)
        return found, [] if found else await views.known()

    found, known = ask(session, work)
    if session.json:
        session.print_json(found)
    elif not found:
        session.hint(_nothing(over, source, labels, known))
    else:
        _print(session, lines.top(found, width(session)))
        if any(lines.is_other(one) for one in found):
            session.hint(lines.OTHER_HINT)


@timings.command(short_help="Everything about one series or query.")
@click.argument("name", metavar="NAME|FINGERPRINT")
@LABEL
@OVER
@pass_session
def show(session: Session, name: str, *, over: float, labels: Labels) -> None:
    """Tell everything about a series or a query: its percentiles over a minute up to 30 days, how it is spread
    over --over, and its label sets.

    NAME is a name (all its label sets are merged) or a series with its braces; FINGERPRINT the beginning of one.

    Example: pgreflex timings show 'http{method="GET",route="/cart",status="200"}'
    """

    async def work(views: TimingViews) -> Shown:
        series, wanted = await _meant(views, name, labels)
        query = None
        plans: list[StoredPlan] = []
        changes: list[PlanChange] = []
        if series == QUERY and wanted and "fingerprint" in wanted:
            query = next(iter(await views.slow_queries(SPANS[-1], most=1, labels=wanted)), None)
            plans = await views.plans.plans(wanted["fingerprint"])
            changes = await views.plans.changes(SPANS[-1], SETS, fingerprint=wanted["fingerprint"])
        return Shown(
            series=series,
            labels=dict(wanted or {}),
            query=None if query is None else lines.text_of(query),
            plans=plans,
            changes=changes,
            spans=await views.totals(series, SPANS, labels=wanted),
            histogram=await views.histogram(series, over, labels=wanted),
            sets=await views.top_series(over, "total", SETS + 1, name=series, labels=wanted),
        )

    found = ask(session, work)
    if session.json:
        session.print_json(found)
    else:
        _print(session, _described(found, over, width(session)))


timings.add_command(watch)


class Shown(msgspec.Struct, kw_only=True):
    """Everything about one series. sets: its label sets, one more than is shown. plans: those that a query
    had, the newest first.
    """

    series: str
    labels: dict[str, str]
    query: str | None
    plans: list[StoredPlan]
    changes: list[PlanChange]
    spans: list[Totals]
    histogram: list[Bucket]
    sets: list[SeriesRow]


async def _meant(views: TimingViews, name: str, labels: Labels) -> tuple[str, Labels]:
    """The series and the labels that NAME|FINGERPRINT means. Raises UsageError, with what is near."""
    known = await views.known()
    names = sorted({one.name for one in known})
    if name in names:
        return name, labels
    if "{" in name and (totals := await views.top_series(OLDEST_SECONDS, most=1, name=name)):
        return totals[0].exactly, labels
    if re.fullmatch("[0-9a-f]{4,16}", name):
        found = await views.fingerprints(name)
        if len(found) == 1:
            return QUERY, {**(labels or {}), "fingerprint": found[0]}
        if found:
            raise UsageError(
                f"{counted(len(found), 'fingerprint')} begin with {name}", hint=f"One of {', '.join(found)}."
            )
    raise UsageError(f"there is no series {lines.cut(lines.shown(name), 100)}", hint=_near(name, names))


def _near(name: str, names: list[str]) -> str:
    if not names:
        return "No timing has been stored yet; it takes about six seconds."
    bare = name.partition("{")[0]
    near = get_close_matches(bare, names, n=3, cutoff=0.5) or [one for one in names if bare and bare in one][:3]
    if near:
        return f"Did you mean {' or '.join(near)}? `pgreflex timings top` lists the busiest."
    return "`pgreflex timings top --over 30d` lists what there is."


def _nothing(over: float, source: str | None, labels: Labels, known: list[Known]) -> str:
    if not known:
        return (
            "No timing has been stored yet. Try `pgreflex watch public.orders --timing`, or"
            " pipeline.instrument(pool) in a program."
        )
    sources = sorted({one.source for one in known})
    if source is not None and source not in sources:
        return f"No series has the source {source}; there is {', '.join(sources)}."
    return f"No timings{' with these labels' if labels else ''} in the last {show_span(over)}."


def _described(told: Shown, over: float, columns: int) -> list[str]:
    labels = ", ".join(f'{key}="{value}"' for key, value in told.labels.items())
    out = [lines.shown(f"{told.series}  {labels}".rstrip())]
    if told.query is not None:
        out += ["", *told.query.splitlines()]
    out += ["", *lines.spans(told.spans, columns)]
    if told.histogram:
        out += ["", f"spread over the last {show_span(over)}", *lines.histogram(told.histogram)]
    out += plan_lines.plans(told.plans, told.changes, columns)
    if len(told.sets) > 1:
        more = f", the first {SETS}" if len(told.sets) > SETS else ""
        out += ["", f"label sets in the last {show_span(over)}{more}"]
        out += lines.top(told.sets[:SETS], columns)
    if any(lines.is_other(one) for one in told.sets):
        out += ["", *wrap(lines.OTHER_HINT, columns)]
    return out


def _print(session: Session, told: Sequence[str]) -> None:
    for line in told:
        session.print(line)
