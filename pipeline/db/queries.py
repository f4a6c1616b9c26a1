"""Queries by fingerprint in Postgres: their texts, and which statements of pg_stat_statements they are.

Owns: the rows of pipeline.query and pipeline.query_id. Must not know where texts come from, nor how a fingerprint
is made.

Rows are only added and touched, so processes write at once; all lock rows in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pipeline.core.fingerprint import FINGERPRINT_VERSION, Fingerprint, fingerprint
from pipeline.db.connection import Database, translated
from pipeline.db.statements import statement

MOVE_BATCH = 500
KEEP_SECONDS = 400 * 86_400.0  # as long as the coarsest timings


class QueryId(NamedTuple):
    """The key of a row of pg_stat_statements. toplevel: it is no statement inside of a function."""

    dbid: int
    userid: int
    queryid: int
    toplevel: bool


class Queries:
    """Reads and writes queries. database: open when it is called. Raises our errors."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def remember(self, found: Iterable[Fingerprint]) -> None:
        """Write down what stands for these; needs no right but the use of our schema. Doing it again is cheap."""
        each = list({one.hex: one for one in found}.values())
        if each:
            await self._database.fetchval(
                "queries/remember",
                [one.hex for one in each],
                FINGERPRINT_VERSION,
                [one.kind for one in each],
                [_storable(one.text) for one in each],
            )

    async def known_ids(self) -> dict[QueryId, str]:
        """The fingerprints of statements of pg_stat_statements that were linked before."""
        return {QueryId(*row[:4]): row[4] for row in await self._database.fetch("queries/known_ids")}

    async def link(self, texts: Mapping[QueryId, str]) -> dict[QueryId, Fingerprint]:
        """The fingerprints of normalised texts of pg_stat_statements, written down with their texts.

        One that is cut short, hidden or no SQL is in the answer, and is not written down as the fingerprint of its
        id, so that the whole text can take its place when it is seen.
        """
        found = {query_id: fingerprint(text) for query_id, text in texts.items()}
        whole = {query_id: one.hex for query_id, one in sorted(found.items()) if one.kind == "ok"}
        await self.remember(found.values())
        if whole:
            columns = [[query_id[column] for query_id in whole] for column in range(4)]
            await self._database.execute("queries/link_ids", *columns, list(whole.values()))
        return found

    async def move(self, version: int = FINGERPRINT_VERSION) -> int:
        """Make the fingerprints of some queries that older rules made anew, and link the old to the new.

        Returns how many; to be called until it is 0. A text that was stored without its end, and one that stands
        for no statement, keeps its key.
        """
        rows = await self._database.fetch("queries/outdated", version, MOVE_BATCH)
        pairs = {row["fingerprint"]: _renewed(row["fingerprint"], row["kind"], row["text"]) for row in rows}
        fresh = [one for old, one in pairs.items() if isinstance(one, Fingerprint) and one.hex != old]
        await self.remember(fresh)
        if pairs:
            new = [one.hex if isinstance(one, Fingerprint) else one for one in pairs.values()]
            await self._move(version, list(pairs), new)
        return len(rows)

    async def prune(self, limit: int = 1_000) -> int:
        """Forget up to `limit` queries that nobody has seen for 400 days, with their plans; returns how many."""
        tag = await self._database.execute("queries/prune", KEEP_SECONDS, limit)
        return int(tag.split()[-1])

    async def _move(self, version: int, old: Sequence[str], new: Sequence[str]) -> None:
        async with self._database.transaction() as connection:
            with translated():
                await connection.execute(statement("queries/move"), version, old, new)


def _renewed(old: str, kind: str, text: str) -> Fingerprint | str:
    """The fingerprint of a stored text, or the old key where the text does not tell it."""
    if kind != "ok" or text.endswith(" ..."):
        return old
    return fingerprint(text)


def _storable(text: str) -> str:
    """The text without lone halves of surrogate pairs, which no database takes."""
    return text.encode("utf-8", "replace").decode()
