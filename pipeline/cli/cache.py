"""`pgreflex cache`: drop what caches hold, and how they do.

Owns: how it is said. Which process holds what is known to nobody; all of them hear it through the feed.
"""

from __future__ import annotations

import click
import msgspec

from pipeline.cli.daemon import told
from pipeline.cli.flags import Verbs
from pipeline.cli.session import Session, pass_session
from pipeline.core.cache_check import nines
from pipeline.core.span import show_span
from pipeline.core.status import CacheStatus, NamespaceFigures
from pipeline.db.cache import CacheDatabase
from pipeline.errors import UsageError


@click.group(cls=Verbs, short_help="Look at caches and drop what they hold.")
def cache() -> None:
    """Look at the caches of all processes, and drop what they hold.

    Example: pgreflex cache invalidate orders:7
    """


@cache.command(short_help="Drop what depends on tags.")
@click.argument("tags", nargs=-1)
@click.option("--prefix", help="Also what depends on any tag that begins with this.")
@pass_session
def invalidate(session: Session, tags: tuple[str, ...], prefix: str | None) -> None:
    """Drop what depends on TAGS in every process, as if they had changed.

    Example: pgreflex cache invalidate orders:7 --prefix report:
    """
    if not tags and not prefix:
        raise UsageError("nothing is named that is to be dropped", hint="Name tags, or say `cache clear`.")
    _drop(session, tags, prefix)
    what = [*tags, *([f"{prefix}..."] if prefix else [])]
    _told(session, f"invalidated: {', '.join(what)}", tags, prefix)


@cache.command(short_help="Drop everything.")
@pass_session
def clear(session: Session) -> None:
    """Drop everything that the caches of all processes hold.

    Example: pgreflex cache clear
    """
    _drop(session, (), "")
    _told(session, "cleared", (), "")


@cache.command(short_help="How the caches do.")
@pass_session
def status(session: Session) -> None:
    """Ask the daemon how the caches do that report to it, in all and by namespace.

    Example: pgreflex cache status --json
    """
    found = told(session).cache
    if session.json:
        session.print_json(msgspec.to_builtins(found))
    elif found is None:
        session.hint("No process reports a cache. Is one connected, with pipeline.connect()?")
    else:
        for line in _lines(found):
            session.print(line)
        session.print("")
        session.print_table(
            ["namespace", "hits", "misses", "entries", "bytes", "saved"], [_row(one) for one in found.namespaces]
        )


def _drop(session: Session, tags: tuple[str, ...], prefix: str | None) -> None:
    async def work() -> None:
        async with session.database() as db:
            await CacheDatabase(db).invalidate(list(tags) or None, prefix)

    session.wait(work())


def _told(session: Session, text: str, tags: tuple[str, ...], prefix: str | None) -> None:
    if session.json:
        session.print_json({"tags": tags, "prefix": prefix})
    else:
        session.print(text)


def _lines(found: CacheStatus) -> list[str]:
    ratio = "unknown" if found.hit_ratio is None else f"{found.hit_ratio:.1%}"
    checks, wrong = found.checks_total, found.violations_total
    fresh = "unknown" if found.fresh_within_1s is None else nines(found.fresh_within_1s, checks)
    bound = "nothing is served" if found.age_bound_seconds is None else f"{found.age_bound_seconds:.2f} s"
    return [
        f"hit ratio         {ratio} over the last minute",
        f"age bound         {bound}",
        f"fresh within 1 s  {fresh}, of {checks:,} checked hits; {wrong:,} were wrong",
        f"held              {found.entries:,} entries, {found.bytes:,} of {found.max_bytes:,} bytes",
    ]


def _row(one: NamespaceFigures) -> list[str]:
    saved = show_span(round(one.saved_seconds_total))
    figures = (one.hits_total, one.misses_total, one.entries, one.bytes)
    return [one.name or "all others", *(f"{figure:,}" for figure in figures), saved]
