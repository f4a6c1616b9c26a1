"""Changes of alerts' states as a sequence that can be followed without missing one.

Owns: the way from alert_history to that sequence. Must not know who follows it.

Numbers are given when a change is written and seen when it is committed, so a lower one may come to light after a
higher one. A number that is missing may be on its way, or its transaction was rolled back. Who may have written
and not committed is seen by the lock that a transaction holds on the table until its end; once those that held
one when the gap was noticed have ended, what is not there by then never will be. Gaps are rare, so this is asked
rarely.
"""

from __future__ import annotations

from pipeline.db.alert_shapes import ChangeRow
from pipeline.db.alert_view import change_of
from pipeline.db.connection import Database


class AlertChanges:
    """A reader of the sequence. position: the number up to which everything has been read."""

    def __init__(self, database: Database, position: int) -> None:
        self.position = position
        self._db = database
        self._gap_end = 0
        self._writers: set[str] = set()

    async def read(self, most: int) -> list[ChangeRow]:
        """What comes next, as far as nothing before it can still come; at most so many."""
        rows = await self._rows(most)
        whole = _without_gap(self.position, rows)
        if whole < len(rows):
            if await self._is_open(rows[-1].id):
                rows = rows[:whole]
            else:  # what was committed meanwhile lies in the gap
                rows = [row for row in await self._rows(most) if row.id <= self._gap_end]
        if rows:
            self.position = rows[-1].id
        return rows

    async def _is_open(self, newest: int) -> bool:
        now = {row["writer"] for row in await self._db.fetch("alert_view/change_writers")}
        if self._gap_end <= self.position:
            self._gap_end, self._writers = newest, now
        else:
            self._writers &= now
        return bool(self._writers)

    async def _rows(self, most: int) -> list[ChangeRow]:
        return [change_of(row) for row in await self._db.fetch("alert_view/changes", self.position, most)]


def _without_gap(position: int, rows: list[ChangeRow]) -> int:
    """How many of the rows follow each other."""
    return next((place for place, row in enumerate(rows) if row.id != position + place + 1), len(rows))
