"""Looks at pg_stat_statements, and the windows that come of them.

Owns: the rows of pipeline.statement_*. Must not know when somebody looks or what is told of it.

A look is one transaction that holds the row of the watch: it subtracts what the last look saw, adds to the windows
and stores what it saw. So no execution counts twice, however many processes look and whatever fails; a look that
fails is made up for by the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import msgspec

from pipeline.core.statement_delta import (
    COUNTERS,
    KEEP,
    LEVELS,
    Delta,
    Entry,
    Key,
    Store,
    collect,
    compare,
    keep,
)
from pipeline.core.statement_source import StatementSource
from pipeline.db.connection import Connection, Database, Record, translated
from pipeline.db.queries import Queries, QueryId
from pipeline.db.statements import statement
from pipeline.errors import Busy

MINUTE = 60
HALF_SECONDS = 30.0  # a look of a minute belongs to the window in which its middle lies
TEXTS = 20  # that are read at once: one of 64 kB takes milliseconds
MAX_ASKED = 10_000
TRIES = 3  # to see all counters without a reset in between


class Look(msgspec.Struct, frozen=True):
    """What one look found.

    delta: what happened since the last one. seconds: how much time of it is known. statements: how many were
    executed. entries: how many statements there are; hidden: how many more, of other roles.
    """

    delta: Delta
    seconds: float
    entries: int
    hidden: int


class _Seen(msgspec.Struct):
    """What the last look of this process stored, for the next one: then it need not be read again."""

    round: int
    entries: dict[Key, Entry]


class StatementCounts:
    """Looks at pg_stat_statements of the database. Raises our database errors."""

    def __init__(self, database: Database, *, keep: int = KEEP) -> None:
        self._database = database
        self._keep = keep
        self._queries = Queries(database)
        self._seen: _Seen | None = None
        self._asked: set[int] = (
            set()
        )  # some texts are cut short or no SQL: these are not asked for again and again

    async def source(self) -> StatementSource:
        """What pg_stat_statements can tell here."""
        row = await self._database.fetchrow("statements/source")
        return msgspec.convert(dict(row or {}), StatementSource)

    async def look(self) -> Look | None:
        """Count what happened since the last look; None while somebody else does."""
        async with self._database.transaction() as connection:
            with translated():
                found = await self._look(connection)
        if found is None:
            return None
        look, self._seen = found
        return look

    async def name(self) -> int:
        """Learn what the statements look like that are kept and not known; returns how many were asked for.

        The server reads all texts for it, however few are wanted, so this is not for every look.
        """
        found = {row["queryid"] for row in await self._database.fetch("statements/unnamed", self._keep)}
        wanted = found - self._asked
        if not wanted:
            return 0
        if len(self._asked) > MAX_ASKED:
            self._asked.clear()
        self._asked |= wanted
        rows = await self._database.fetch("statements/texts", list(wanted))
        texts = {
            QueryId(row["dbid"], row["userid"], row["queryid"], row["toplevel"]): row["query"] for row in rows
        }
        for start in range(0, len(texts), TEXTS):
            await self._queries.link(dict(list(texts.items())[start : start + TEXTS]))
        return len(wanted)

    async def roll_up(self) -> None:
        """Sum up closed windows into those of the next levels."""
        async with self._database.transaction() as connection:
            with translated():
                if await connection.fetchrow(statement("statements/lock_watch")) is None:
                    return
                for seconds, coarser in pairwise(LEVELS):
                    await connection.execute(statement("statements/roll_up"), seconds, coarser, self._keep)

    async def prune(self) -> None:
        """Delete what is past its time."""
        for seconds, kept in LEVELS.items():
            last = seconds == max(LEVELS)
            await self._database.execute("statements/prune", seconds, float(kept), last)

    async def _look(self, connection: Connection) -> tuple[Look, _Seen] | None:
        watch = await connection.fetchrow(statement("statements/lock_watch"))
        if watch is None:
            return None
        store, rows = await _counters(connection)
        seen = await asyncio.to_thread(collect, (_entry(row) for row in rows if row["queryid"] is not None))
        last = await self._last(connection, watch)
        delta = await asyncio.to_thread(compare, last, store, seen)
        now = watch["now"]
        seconds = _known(delta, store, watch)
        since = now if watch["at"] is None else min(watch["at"], now - seconds)
        await self._add(connection, delta, since, now, seconds)
        before = None if last is None or delta.gap else last[1]
        await _remember(connection, before, seen)
        await connection.execute(
            statement("statements/save_watch"),
            store.name, store.reset_at, store.read_at, store.deallocs, len(seen), now,
        )  # fmt: skip
        hidden = sum(row["queryid"] is None for row in rows)
        return Look(delta, seconds, len(seen), hidden), _Seen(watch["round"] + 1, seen)

    async def _last(
        self, connection: Connection, watch: Record
    ) -> tuple[Store, Mapping[Key, Entry] | None] | None:
        if watch["store"] is None:
            return None
        store = Store(watch["store"], watch["reset_at"], watch["read_at"], watch["deallocs"])
        if self._seen is not None and self._seen.round == watch["round"]:
            return store, self._seen.entries
        rows = await connection.fetch(statement("statements/baseline"))
        if len(rows) != watch["entries"]:  # unlogged: a crash or a promotion empties it
            return store, None
        return store, dict(_entry(row) for row in rows)

    async def _add(self, connection: Connection, delta: Delta, since: float, until: float, known: float) -> None:
        start = (until - HALF_SECONDS) // MINUTE * MINUTE
        gaps = int(delta.gap not in ("", "first"))
        await connection.execute(
            statement("statements/add_round"),
            start, since, until, known, delta.deallocs, delta.vanished, delta.rebased, gaps,
        )  # fmt: skip
        kept = list((await asyncio.to_thread(keep, delta.counts, self._keep)).items())
        if kept:
            await connection.execute(
                statement("statements/add_windows"),
                start,
                *_columns(key for key, _ in kept),
                [counts.low_max for _, counts in kept],
                [counts.high_max for _, counts in kept],
                [value for _, counts in kept for value in counts.counters],
                len(COUNTERS),
            )


async def _counters(connection: Connection) -> tuple[Store, list[Record]]:
    """All counters, and which they are: those of before a reset and those of after it would be counted twice."""
    for _ in range(TRIES):
        before = await _store(connection)
        rows = await connection.fetch(statement("statements/counters"))
        if (await _store(connection)).reset_at == before.reset_at:
            return before, rows
    raise Busy("pg_stat_statements was reset again and again while it was read")


async def _store(connection: Connection) -> Store:
    row = await connection.fetchrow(statement("statements/store"))
    return msgspec.convert(dict(row or {}), Store)


async def _remember(connection: Connection, before: Mapping[Key, Entry] | None, seen: Mapping[Key, Entry]) -> None:
    """Store what was seen; only what has changed, where what was stored before is known."""
    if before is None:
        await connection.execute(statement("statements/clear_baseline"))
        before = {}
    gone = before.keys() - seen.keys()
    if gone:
        await connection.execute(statement("statements/forget"), *_columns(gone))
    changed = [(key, entry) for key, entry in seen.items() if before.get(key) != entry]
    if changed:
        await connection.execute(
            statement("statements/remember"),
            *_columns(key for key, _ in changed),
            [entry.since for _, entry in changed],
            [entry.max_since for _, entry in changed],
            [entry.max_ms for _, entry in changed],
            [value for _, entry in changed for value in entry.counters],
            len(COUNTERS),
        )


def _known(delta: Delta, store: Store, watch: Record) -> float:
    """How many seconds before this look are known."""
    if delta.gap == "reset":
        return max(store.read_at - store.reset_at, 0.0)
    return 0.0 if delta.gap else float(watch["now"] - watch["at"])


def _columns(keys: Iterable[Key]) -> tuple[list[int], list[int], list[bool]]:
    listed = list(keys)
    return [key[0] for key in listed], [key[1] for key in listed], [key[2] for key in listed]


def _entry(row: Record) -> tuple[Key, Entry]:
    counters: Any = row["counters"]
    entry = Entry(tuple(counters), row["max_ms"], row["since"], row["max_since"])
    return (row["userid"], row["queryid"], row["toplevel"]), entry
