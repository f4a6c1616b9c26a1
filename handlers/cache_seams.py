"""What the cache needs of others, and what passes between them.

Owns: the interfaces. Knows nothing of who stands behind them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from pipeline.core.cache_policy import QueryTags
from pipeline.core.freshness import Probe
from pipeline.core.snapshot import Snapshot


class Loaded(msgspec.Struct, frozen=True):
    """What a loader may return instead of the bare value.

    snapshot: one all of which the value contains, by `pg_current_snapshot()` in the statement that read
    it or in an earlier one; None when unknown. tags: what the value depends on besides the tags that were
    announced. current: the snapshot was asked for after the loader had been called, so that it is no older
    transaction's. ttl: seconds from the beginning of the load, if less than the policy's. was_shared: it comes
    from the second level.
    """

    value: Any
    snapshot: Snapshot | None = None
    tags: tuple[str, ...] = ()
    current: bool = False
    ttl: float | None = None
    was_shared: bool = False


Loader: TypeAlias = Callable[[], Awaitable[Any]]


class CacheSource(Protocol):
    """What the cache needs of a database; pipeline.db.cache.CacheDatabase is one."""

    async def probe(self) -> Probe: ...

    async def read(
        self, query: str, args: Sequence[Any], *, timeout: float | None = None
    ) -> tuple[list[dict[str, Any]], Snapshot]: ...

    async def invalidate(self, tags: Sequence[str] | None, prefix: str | None) -> int:
        """Say so to every cache; returns the transaction that does."""


class Analyst(Protocol):
    """Finds what a query depends on."""

    async def tags(self, sql: str, args: Sequence[Any]) -> QueryTags:
        """Raises UsageError with the reason where the rows cannot be proved to depend on tags alone."""

    def forget(self, tag: str | None = None) -> None:
        """What this tag stands for has changed, or anything may have; what was found before does not count."""


class Lookup(Protocol):
    """How rows of a table are found by one column. one: the query for a single key."""

    @property
    def one(self) -> str: ...

    async def rows(self, read: Any, keys: Sequence[Any]) -> Sequence[Any]:
        """For each key its rows, and a snapshot all of which they contain; or why it can be the key of none."""


class Lookups(Protocol):
    """Knows the application's tables; pipeline.db.rows.Lookups is one."""

    async def find(self, table: str, key: str, columns: Sequence[str] = ()) -> Lookup: ...


class SharedEntry(msgspec.Struct, frozen=True):
    """A value on its way to the second level. key: see stable_key. ttl: seconds that are left; None: no end."""

    key: bytes
    namespace: str
    value: Any
    tags: frozenset[str]
    snapshot: Snapshot | None
    ttl: float | None


class SharedCache(Protocol):
    """A second level that all processes share. None of its calls may raise: it does without, and logs it.

    What `get` returns is judged like anything that was loaded: by its snapshot, and without one it is not stored
    if anything changed since it was asked for.
    """

    async def get(self, key: bytes, tags: frozenset[str] | None) -> Loaded | None:
        """What is stored, with `was_shared`; None: nothing that may be used."""

    async def put(self, entry: SharedEntry) -> None:
        """Store it; whoever waits in `lead` for this key goes on."""

    async def lead(self, key: bytes) -> bool:
        """Whether this process is to load it. Else another one was loading it, and has ended or takes too long."""
