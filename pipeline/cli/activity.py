"""`pgreflex activity`: what the server counted, what its sessions are at, and who waits for whom.

Owns: the verbs and how they look.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import click

from pipeline.cli.flags import Verbs
from pipeline.cli.session import Session, pass_session
from pipeline.cli.timing_flags import LIMIT, OVER, width
from pipeline.cli.timing_lines import duration, number, percent, table
from pipeline.core.span import show_span
from pipeline.core.statement_source import StatementSource, shortcomings
from pipeline.core.status import BlockedSession
from pipeline.db.job_view import VIEW_SETTINGS
from pipeline.db.server_view import ServerViews, StatementRow, WaitRow

T = TypeVar("T")
LOST = "More may have happened: entries were evicted or reset, or the server crashed."


@click.group(cls=Verbs, short_help="What the server does: statements, waits, locks.")
def activity() -> None:
    """What the server itself counts and tells: all statements by pg_stat_statements, what sessions wait for, and
    who holds up whom.

    Example: pgreflex activity waits --over 10m
    """


@activity.command(short_help="The statements that took the most, by the server's own counts.")
@OVER
@LIMIT
@pass_session
def statements(session: Session, *, over: float, limit: int) -> None:
    """List what pg_stat_statements counted of this database, with the programs that are not instrumented. There
    are no percentiles: they cannot be had from it.

    Example: pgreflex activity statements --over 24h
    """

    async def work(views: ServerViews) -> tuple[list[StatementRow], StatementSource]:
        return await views.statements(over, limit), await views.source()

    found, source = _ask(session, work)
    if session.json:
        session.print_json(found)
        return
    if found:
        _print(session, ("statement", "calls", "total", "mean", "max", "rows", "read", "share"), [
            ((_name(one), number(one.calls), duration(one.total_ms), duration(one.mean_ms), duration(one.max_ms),
              number(one.rows), number(one.shared_read), percent(one.share)), one.query or "")
            for one in found
        ])  # fmt: skip
        session.hint(
            f"Watched: {show_span(found[0].seconds)}. Read: in blocks." + (f" {LOST}" if found[0].lost else "")
        )
    else:
        session.hint(f"Nothing was counted within {show_span(over)}; `pgreflex run` counts once a minute.")
    for one in shortcomings(source):
        session.hint(f"{one.detail}: {one.hint}")


@activity.command(short_help="What active sessions were at.")
@OVER
@LIMIT
@pass_session
def waits(session: Session, *, over: float, limit: int) -> None:
    """List what active sessions were at, as found by looking once a second; of the last 48 hours. `sessions` is
    how many were at it on average.

    Example: pgreflex activity waits --over 10m
    """

    async def work(views: ServerViews) -> list[WaitRow]:
        return await views.waits(over, limit)

    found = _ask(session, work)
    if session.json:
        session.print_json(found)
    elif found:
        _print(session, ("at", "sessions", "share"), [
            ((": ".join(filter(None, (one.wait_type, one.wait_event))), f"{one.sessions:.2f}", percent(one.share)),
             one.query or "")
            for one in found
        ])  # fmt: skip
    else:
        session.hint(f"No active session was seen within {show_span(over)}; `pgreflex run` looks once a second.")


@activity.command(short_help="Who waits for a lock, and behind whom.")
@LIMIT
@pass_session
def blocked(session: Session, *, limit: int) -> None:
    """List who waits for a lock right now, and who holds all of them up. Only what your role may see.

    Example: pgreflex activity blocked
    """

    async def work(views: ServerViews) -> list[BlockedSession]:
        return await views.blocked(limit)

    found = _ask(session, work)
    if session.json:
        session.print_json(found)
    elif found:
        _print(session, ("pid", "waits", "for", "behind", "held up by", "its transaction"), [
            ((str(one.pid), _seconds(one.waited_seconds), one.relation or one.lock or "-", str(one.behind or "-"),
              f"{one.root or '-'} {one.root_state or 'unknown'}", _seconds(one.root_transaction_seconds)),
             one.text or "")
            for one in found
        ])  # fmt: skip
    else:
        session.hint("Nobody waits for a lock.")


def _ask(session: Session, question: Callable[[ServerViews], Awaitable[T]]) -> T:
    async def work() -> T:
        async with session.database(VIEW_SETTINGS) as db:
            return await question(ServerViews(db))

    return session.wait(work())


def _print(session: Session, heads: Sequence[str], rows: Sequence[tuple[Sequence[str], str]]) -> None:
    for line in table(heads, rows, width(session)):
        session.print(line)


def _name(one: StatementRow) -> str:
    """A fingerprint; a query id where there is none yet."""
    if one.queryids is None:
        return "all others"
    return one.fingerprint or f"id {one.queryids[0]}"


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else show_span(seconds)
