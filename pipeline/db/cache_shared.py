"""The table of values that all processes share.

Owns: its statements, and how rows travel. Knows neither who may use a row nor what is in its bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pipeline.core.cache_shared import SharedRow
from pipeline.core.snapshot import Snapshot
from pipeline.db.connection import Database

LOCK_MILLISECONDS = 100
WRITE_SECONDS = 2.0


class Answer(msgspec.Struct, frozen=True):
    """What stands there. wait: seconds that whoever loads the value has left; None, and no row: it is for the
    caller to load.
    """

    row: SharedRow | None = None
    wait: float | None = None


class NewRow(msgspec.Struct, frozen=True):
    """A row to be written. ttl: seconds; None: no end."""

    key: bytes
    version: int
    namespace: str
    value: bytes
    tags: tuple[str, ...]
    snapshot: Snapshot
    ttl: float | None
    load_ms: float


def shared_database(dsn: str | None) -> Database:
    """Connections for the table alone: a read must not wait for what the application does on its own."""
    return Database(dsn, purpose="share", max_size=4, settings={"lock_timeout": str(LOCK_MILLISECONDS)})


class SharedTable:
    """Raises our errors only; ValueError for a row that is none of ours. program: on which the values are read."""

    def __init__(self, database: Database, program: Database | None = None) -> None:
        self._database = database
        self._program = program or database

    async def settings(self) -> str:
        """A digest of what is set otherwise in the program's sessions than in the server's configuration."""
        digest: str = await self._program.fetchval("cache/shared_settings")
        return digest

    async def get(
        self, key: bytes, epoch: str, refused: SharedRow | None, owner: int, lease: float, *, timeout: float
    ) -> Answer:
        """The row of a key; if there is none but `refused`, the right to load it for `lease` seconds, or the wait
        for whoever has that right.
        """
        version, at = (None, None) if refused is None else (refused.version, str(refused.snapshot))
        found = await self._database.fetchrow(
            "cache/shared_get", key, epoch, version, at, owner, lease, timeout=timeout
        )
        if found is None or found["version"] is None:
            return Answer(wait=None if found is None else found["wait_s"])
        return Answer(
            SharedRow(
                value=found["value"],
                tags=frozenset(found["tags"]),
                snapshot=Snapshot.parse(found["snapshot"]),
                version=found["version"],
                upper=Snapshot.parse(found["upper"]),
                left=found["left_s"],
                load_ms=found["load_ms"],
            )
        )

    async def put(self, epoch: str, owner: int, rows: Sequence[NewRow]) -> Snapshot | None:
        """Store the rows and end the leases on them; returns their upper snapshot. None: there is no room."""
        upper: str | None = await self._database.fetchval(
            "cache/shared_put",
            epoch,
            owner,
            [row.key for row in rows],
            [row.version for row in rows],
            [row.namespace for row in rows],
            [row.value for row in rows],
            [msgspec.json.encode(row.tags).decode() for row in rows],
            [str(row.snapshot) for row in rows],
            [row.ttl for row in rows],
            [row.load_ms for row in rows],
            timeout=WRITE_SECONDS,
        )
        return None if upper is None else Snapshot.parse(upper)

    async def raise_to(self, epoch: str, snapshot: Snapshot, rows: Sequence[tuple[bytes, int]]) -> bool:
        """Say that the rows, by key and version, contain all of `snapshot`; False: there is no room."""
        keys, versions = [key for key, _version in rows], [version for _key, version in rows]
        done: bool = await self._database.fetchval(
            "cache/shared_raise", epoch, keys, versions, str(snapshot), timeout=WRITE_SECONDS
        )
        return done

    async def release(self, owner: int, keys: Sequence[bytes]) -> None:
        """Let others load these."""
        await self._database.fetchval("cache/shared_release", owner, list(keys), timeout=WRITE_SECONDS)

    async def turn(self) -> bool:
        """Make room by giving up the older half; whether there is room now."""
        done: bool = await self._database.fetchval("cache/shared_turn", timeout=WRITE_SECONDS)
        return done
