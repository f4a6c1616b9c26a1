"""What the cache needs of others, and what passes between them.

Owns: the interfaces. Knows nothing of who stands behind them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from pipeline.core.cache import CacheCore
from pipeline.core.cache_policy import QueryTags
from pipeline.core.cache_shared import SharedRow
from pipeline.core.freshness import Probe
from pipeline.core.snapshot import Snapshot
from pipeline.core.store import Entry


class Loaded(msgspec.Struct, frozen=True):
    """What a loader may return instead of the bare value.

    snapshot: one all of which the value contains, by `pg_current_snapshot()` in the statement that read
    it or in an earlier one; None when unknown. tags: what the value depends on besides the tags that were
    announced. current: the snapshot was asked for after the loader had been called, so that it is no older
    transaction's. ttl: seconds from the beginning of the load, if less than the policy's. row: where it comes
    from in the second level.
    """

    value: Any
    snapshot: Snapshot | None = None
    tags: tuple[str, ...] = ()
    current: bool = False
    ttl: float | None = None
    row: SharedRow | None = None


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


class Use(msgspec.Struct, frozen=True):
    """How one key is shared. name: its key for all processes. returns: the type that its function says it
    returns, or None.
    """

    key: Hashable
    name: bytes
    namespace: str = ""
    returns: Any = None


class SharedCache(Protocol):
    """A second level that all processes share. None of its calls may raise: it does without, and logs it.

    by_default: whether what says nothing of it is shared.
    """

    by_default: bool

    def join(self, core: CacheCore) -> None:
        """Serve the cache that this is the core of."""

    async def settings(self) -> str | None:
        """What else a value depends on in this process: the settings of its sessions. None: ask again later."""

    async def get(self, use: Use, tags: frozenset[str] | None, load_seconds: float | None) -> Loaded | None:
        """What is stored and may be served now, with its row; None: load it, and say `loaded` or `release`.

        load_seconds: how long the last load took.
        """

    def loaded(self, use: Use) -> None:
        """It was loaded, and is handed out."""

    def put(self, use: Use, entry: Entry) -> None:
        """It stands in the store: share it, soon."""

    def release(self, use: Use) -> None:
        """It was not loaded, or may not be shared: somebody else may load it."""

    def probed(self, asked: float, answer: Snapshot) -> None:
        """The database said where it stands; the question was sent at `asked`."""
