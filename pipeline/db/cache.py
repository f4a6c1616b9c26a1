"""What the cache asks of the database.

Owns: probes of its position, and reads that know which transactions they contain. Knows nothing of entries.

A read asks for the snapshot first and runs the query next, both as plain statements. The query's own
snapshot is taken later, so it sees at least whatever the first one sees, and that is all the fill rule
needs. One round trip more than the query alone; a REPEATABLE READ transaction would cost three, and one
statement around both would have to take the query apart (repeated column names, ORDER BY, FOR SHARE).
What commits between the two makes the cache drop a value that contained it already: a lost hit, never a
stale one. It holds through a transaction-mode pooler too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline.core.cache_check import Violation
from pipeline.core.freshness import Probe
from pipeline.core.snapshot import Snapshot
from pipeline.db.connection import Database
from pipeline.db.statements import statement
from pipeline.errors import ServerNotSuitable

PROBE_SECONDS = 5.0
TELL_SECONDS = 10.0
LONGEST_LABEL = 200


class CacheDatabase:
    """Reads on the pool `db`; probes on the pool `probes`, if given, so that reads never keep them
    waiting.
    """

    def __init__(self, db: Database, probes: Database | None = None) -> None:
        self._db = db
        self._probes = probes or db

    async def probe(self) -> Probe:
        """The database's position now. Raises ServerNotSuitable on a standby, whose position is not the
        writers'.
        """
        row = await self._probes.fetchrow("cache/probe", timeout=PROBE_SECONDS)
        if row is None or row["in_recovery"]:
            raise ServerNotSuitable(
                "the cache is connected to a standby, which cannot tell what has been written",
                hint="Add target_session_attrs=read-write to the address, or give that of the primary.",
            )
        return Probe(Snapshot.parse(row["snapshot"]), row["server"])

    async def read(
        self, query: str, args: Sequence[Any], *, timeout: float | None = None
    ) -> tuple[list[dict[str, Any]], Snapshot]:
        """The rows of a query, and a snapshot all of which they contain. Raises our errors only."""
        async with self._db.acquire() as connection:
            snapshot = Snapshot.parse(await connection.fetchval(statement("cache/snapshot")))
            rows = await connection.fetch(query, *args, timeout=timeout)
        return [dict(row) for row in rows], snapshot

    async def invalidate(self, tags: Sequence[str] | None, prefix: str | None) -> int:
        """Say to every cache that tags have changed; returns the transaction. Raises our errors only."""
        row = await self._db.fetchrow("cache/invalidate", tags, prefix, timeout=TELL_SECONDS)
        return 0 if row is None else int(row["xid"])

    async def alarm(self, violation: Violation) -> None:
        """Raise the alert `cache_violation`. Names no key and no value. Raises our errors only."""
        message = (
            f"{violation.namespace} served a value that was wrong, and no change explains it; "
            f"it depends on {', '.join(violation.tables)}"
        )
        labels = msgspec.json.encode({"namespace": violation.namespace[-LONGEST_LABEL:]}).decode()
        await self._db.execute("cache/alarm", message, labels, timeout=TELL_SECONDS)
