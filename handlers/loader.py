"""Loads single things together: the requests of one turn of the loop become one query.

Owns: the call, and which requests may share a query. The batching is aiodataloader's; what is cached, and for how
long, is the cache's; the query is made in pipeline/db/rows.py.

Each key is a value of the cache by itself: it is tagged, dropped, shared and counted like any other. Only those
that have to be loaded meet in a batch, which reads them all under one snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from aiodataloader import DataLoader
from msgspec import structs

from handlers.cache import Cache
from handlers.cache_keys import fields_of, tag_set
from handlers.cache_scope import bypass, scope_of_request
from handlers.cache_seams import CacheSource, Loaded, Lookup
from pipeline.core.cache_policy import Options
from pipeline.core.cachekey import freeze
from pipeline.errors import PgreflexError, UsageError

MOST_KEYS = 100  # in one query; more of one turn make several, side by side
LoadMany: TypeAlias = "Callable[[list[Any]], Awaitable[Mapping[Any, Any] | Sequence[Any]]]"


class Loader:
    """Loads what belongs to a key; requests of one turn of the loop, for 100 keys at most, are one batch.

    source: a table, as SQL would write it, or an async function that takes a list of different keys and returns a
    mapping from key to value, or a sequence of values in the order of the keys; a value that is an exception fails
    its key alone. key: the column that tells rows apart. columns: those that are wanted; none means all. many: the
    value is a list of all rows with that key, in place of one row or None.
    tags: a template, `"price:{key}"`; None, for a table only: found by looking at the query. options: see Options.
    """

    def __init__(
        self,
        find: Callable[[], Cache],
        source: str | LoadMany,
        *,
        key: str = "id",
        columns: Sequence[str] = (),
        many: bool = False,
        tags: str | Iterable[str] | None = None,
        options: Options,
    ) -> None:
        if not isinstance(source, str) and tags is None:
            raise UsageError(
                "what a function loads is cached, so it must be said what it depends on",
                hint='Give tags="price:{key}"; the key stands in place of {key}.',
            )
        self._find = find
        self._source = source
        self._column, self._columns, self._many = key, tuple(columns), many
        self._tags = tag_set(tags)
        for template in self._tags or ():
            for field in fields_of(template):
                if field != "key":
                    raise UsageError(
                        f"the tag {template!r} names {field!r}, which a loader does not know",
                        hint="The key stands in place of {key}.",
                    )
        self._options = options
        self._lookups: WeakKeyDictionary[Cache, _Known] = WeakKeyDictionary()
        self._batches: dict[Any, DataLoader[Any, Loaded]] = {}  # those that are being filled

    async def load(self, key: Any) -> Any:
        """What belongs to `key`: a row as a dict, None where there is none. Nothing belongs to None.

        Raises our errors, for this key alone where it alone is to blame.
        """
        if key is None:
            return [] if self._many else None
        cache = self._find()
        if isinstance(self._source, str):
            return await self._load_row(cache, self._source, key)
        function, frozen = self._source, freeze(key)

        async def load(keys: list[_Key]) -> list[Any]:
            return await _from_function(function, keys)

        async def batched() -> Loaded:
            return await self._batch(_source(cache), load).load(_Key(frozen, key))

        return await cache.get_or_load(
            ("loader", function, frozen), batched, tags=self._tags_of(key), **self._options
        )

    async def load_many(self, keys: Iterable[Any], *, return_exceptions: bool = False) -> list[Any]:
        """What belongs to each of `keys`, in their order.

        return_exceptions: an error stands in the place of its key; without it the first one is raised.
        """
        return await asyncio.gather(*map(self.load, keys), return_exceptions=return_exceptions)

    async def _load_row(self, cache: Cache, table: str, key: Any) -> Any:
        found, frozen = await self._lookup(cache, table), freeze(key)
        tags, settings = self._tags_of(key), None
        if tags is None:
            query = await cache.depends_on(found.one, key)
            tags, settings = query.tags, query.key

        async def batched() -> Loaded:
            source = _source(cache)
            # between the look at the query and this load a definition may have changed, and so may the table
            newer = None if self._tags is not None else await cache.depends_on(found.one, key)

            async def load(keys: list[_Key]) -> list[Any]:
                latest = await self._lookup(cache, table)
                answers = await latest.rows(source.read, [key.value for key in keys])
                return [self._row(answer) for answer in answers]

            loaded = await self._batch(source, load).load(_Key(frozen, key))
            return loaded if newer is None else structs.replace(loaded, tags=tuple(newer.tags))

        return await cache.get_or_load(
            ("loader", found.one, self._many, frozen, settings), batched, tags=tags, **self._options
        )

    async def _lookup(self, cache: Cache, table: str) -> Lookup:
        """Found by the first request, until a definition changes; all that wait for it go on in the same turn,
        and so in one batch.
        """
        while True:
            known = self._lookups.get(cache)
            if known is None or known.definitions != cache.definitions:
                known = self._lookups[cache] = _Known(cache.definitions)
                try:
                    known.lookup.set_result(await self._find_lookup(cache, table))
                except BaseException:
                    if self._lookups.get(cache) is known:
                        del self._lookups[cache]
                    known.lookup.cancel()  # whoever waits looks for itself
                    raise
            if not known.lookup.done():
                await asyncio.wait((known.lookup,))
            if not known.lookup.cancelled() and known.definitions == cache.definitions:
                return known.lookup.result()

    async def _find_lookup(self, cache: Cache, table: str) -> Lookup:
        if cache.lookups is None:
            raise UsageError("this cache cannot look up rows", hint="Give a function in place of the table.")
        return await cache.lookups.find(table, self._column, self._columns)

    def _row(self, answer: Any) -> Loaded | PgreflexError:
        if isinstance(answer, PgreflexError):
            return answer
        rows, snapshot = answer
        if self._many:
            return Loaded(rows, snapshot)
        if len(rows) > 1:
            return UsageError(
                f"{len(rows)} rows of {self._source} have this {self._column}",
                hint="Give many=True to have all rows of a key.",
            )
        return Loaded(rows[0] if rows else None, snapshot)

    def _batch(
        self, source: CacheSource, load: Callable[[list[_Key]], Awaitable[list[Any]]]
    ) -> DataLoader[Any, Loaded]:
        """The batch that is being filled: one for each connection on which it will be read.

        A function's, too: what it reads through the cache inside a transaction is for that transaction only.
        """
        batch = self._batches.get(source)
        if batch is None or batch.loop is not asyncio.get_running_loop():

            async def begin(keys: list[_Key]) -> list[Any]:
                self._batches.pop(source, None)  # it holds the connection, and what is asked next begins another
                return await load(keys)

            batch = self._batches[source] = DataLoader(_once(begin), max_batch_size=MOST_KEYS, cache=False)
        return batch

    def _tags_of(self, key: Any) -> frozenset[str] | None:
        return None if self._tags is None else frozenset(tag.format(key=key) for tag in self._tags)


def _source(cache: Cache) -> CacheSource:
    """Where this request reads: a transaction that it is inside, or the cache's own connections."""
    scope = scope_of_request.get()
    return (scope and scope.source) or cache.source


class _Known:
    """What was found of the table. definitions: the cache's, when the look began."""

    __slots__ = ("definitions", "lookup")

    def __init__(self, definitions: int) -> None:
        self.definitions = definitions
        self.lookup: asyncio.Future[Lookup] = asyncio.get_running_loop().create_future()


class _Key:
    """A key with what makes it equal to another."""

    __slots__ = ("frozen", "value")

    def __init__(self, frozen: Hashable, value: Any) -> None:
        self.frozen = frozen
        self.value = value


def _once(load: Callable[[list[_Key]], Awaitable[list[Any]]]) -> Any:
    """Ask for each key once, however often it is wanted."""

    async def load_different(keys: list[_Key]) -> list[Any]:
        different = {key.frozen: key for key in keys}
        answers = dict(zip(different, await load(list(different.values())), strict=True))
        return [answers[key.frozen] for key in keys]

    return load_different


async def _from_function(function: LoadMany, keys: list[_Key]) -> list[Any]:
    # what the function reads through the cache would be passed on to one of these keys only: so it reads anew
    async with bypass():
        found = await function([key.value for key in keys])
    if isinstance(found, Mapping):
        values = [found.get(key.value) for key in keys]
    elif len(found) == len(keys):
        values = list(found)
    else:
        raise UsageError(
            f"the function was asked for {len(keys)} keys and returned {len(found)} values",
            hint="Return as many values as keys, in their order, or a mapping.",
        )
    return [value if isinstance(value, (Exception, Loaded)) else Loaded(value) for value in values]
