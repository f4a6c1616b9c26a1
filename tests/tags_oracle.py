"""The oracle of automatic tags: a result that changed although nothing touched its tags is a bug.

Owns: one run over random worlds (tests/tags_world.py) on a real database, with the real triggers. No pump runs:
what the triggers wrote is read from the outbox itself, and passed on as the cache does it.

For each query the oracle keeps what a cache would: its result, and its tags in the cache's own index. After each
change it asks again. A query whose tags were touched is taken up anew. One whose tags were not has to give the
same rows.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import asyncpg
import msgspec

from pipeline.core.events import Event
from pipeline.core.tags import TagIndex
from pipeline.db.connection import Database
from pipeline.db.query_tags import QueryAnalyst
from pipeline.errors import NotCacheable, PgreflexError
from tests.tags_world import World

QUERIES = 14
CHANGES = 24
PATH = "s, w"
OUTBOX = """
    select o.xid::text::bigint as xid, coalesce(o.name, w.tag, f.tag) as name, o.op::text as op, o.keys, o.id
    from pipeline.outbox o
    left join pipeline.watch w on w.id = o.watch left join pipeline.former_watch f on f.id = o.watch
    order by o.id
"""


class Bug(msgspec.Struct):
    """A result that changed unnoticed."""

    seed: str
    query: str
    args: list[Any]
    tags: list[str]
    change: list[str]
    events: list[str]
    before: str
    after: str
    world: list[str]

    def __str__(self) -> str:
        said = "\n".join(f"  {line}" for line in self.world)
        return (
            f"seed {self.seed}\n{said}\n  {self.query}\n  {self.args}\nhad the tags {self.tags} and changed from"
            f"\n  {self.before}\nto\n  {self.after}\nby\n  {'; '.join(self.change)}\nwhich told {self.events}"
        )


class Oracle:
    """Runs worlds, one after another, in one database. counts: queries, refused, changes, results, bugs, ..."""

    def __init__(self, dsn: str, sql: asyncpg.Connection) -> None:
        self.counts: Counter[str] = Counter()
        self.bugs: list[Bug] = []
        self.reasons: Counter[str] = Counter()
        self.tell: Callable[[Event], bool] = lambda event: True  # a seeded mistake swallows some
        self._db = Database(dsn, purpose="oracle", max_size=2, settings={"search_path": PATH})
        self.sql = sql

    async def open(self) -> None:
        await self._db.open()
        await self.sql.execute(f"set search_path = {PATH}; set client_min_messages = error")

    async def close(self) -> None:
        await self._db.close()

    async def run(self, seed: int, *, seconds: float, worlds: int | None = None, stop_at: int | None = 1) -> None:
        """Worlds of this seed until the time or their number is up, or `stop_at` bugs are found."""
        until = time.monotonic() + seconds
        number = 0
        while time.monotonic() < until and (worlds is None or number < worlds):
            if stop_at is not None and len(self.bugs) >= stop_at:
                return
            await self._world(f"{seed}:{number}", until)
            number += 1

    async def _world(self, seed: str, until: float) -> None:
        rng = Random(seed)
        world = World(rng)
        self.analyst = QueryAnalyst(self._db)
        await self.sql.execute("drop schema if exists w cascade; drop schema if exists s cascade")
        story = []
        for statement in [*world.made, *world.watches]:
            with suppress(asyncpg.PostgresError):  # a row that breaks a key, a view that no type allows
                await self.sql.execute(statement)
                story.append(statement)
        await self._events()
        self.counts["worlds"] += 1
        kept: dict[int, tuple[str, list[Any], str, frozenset[str]]] = {}
        index = TagIndex()
        pool = [world.query() for _ in range(QUERIES)]
        for number, (query, args) in enumerate(pool):
            await self._keep(kept, index, number, query, args)
        for _change in range(CHANGES):
            if time.monotonic() > until:
                return
            change = world.change()
            done = await self._change(change)
            events = await self._events()
            touched: set[Any] = set()
            for event in events:
                if not self.tell(event):
                    continue
                if event.op == "w":
                    self.analyst.forget(event.name)
                for tag in event.changed():
                    touched |= index.touched(tag)
            for number, (query, args, before, tags) in list(kept.items()):
                after = await self._result(query, args)
                self.counts["results"] += 1
                if after != before:
                    self.counts["changed"] += 1
                    if number not in touched:
                        self.counts["bugs"] += 1
                        told = [f"{event.op} {event.name} {event.keys}" for event in events]
                        self.bugs.append(Bug(seed, query, args, sorted(tags), change, told, before, after, story))
                elif number in touched:
                    self.counts["touched in vain"] += 1
                if number in touched or after != before:
                    index.remove(number, tags)
                    del kept[number]
            story += change if done else []
            for number in range(QUERIES):
                if number not in kept:
                    if rng.random() < 0.3:
                        pool[number] = world.query()
                    await self._keep(kept, index, number, *pool[number])
            if len(kept) < QUERIES / 3:
                return  # too much of this world may not be cached any more

    async def _keep(self, kept: dict[int, Any], index: TagIndex, number: int, query: str, args: list[Any]) -> None:
        """Take up a query, unless it is refused or fails."""
        self.counts["queries"] += 1
        try:
            tags = (await self.analyst.tags(query, args)).tags
        except NotCacheable as error:
            self.counts["refused"] += 1
            self.reasons[error.message.removeprefix("the tags of this query cannot be found: ")[:40]] += 1
            return
        except PgreflexError:
            self.counts["invalid"] += 1
            return
        result = await self._result(query, args)
        if result.startswith("error"):
            self.counts["invalid"] += 1
            return
        self.counts["narrowed"] += any(":" in tag for tag in tags)
        kept[number] = (query, args, result, tags)
        index.add(number, tags)

    async def _change(self, statements: list[str]) -> bool:
        self.counts["changes"] += 1
        try:
            async with self.sql.transaction():
                for statement in statements:
                    await self.sql.execute(statement)
        except asyncpg.PostgresError:
            self.counts["changes refused"] += 1
            return False
        return True

    async def _events(self) -> list[Event]:
        rows = await self.sql.fetch(OUTBOX)
        await self.sql.execute("delete from pipeline.outbox_0; delete from pipeline.outbox_1")
        return [
            Event(row["xid"], row["name"], row["op"], None if row["keys"] is None else tuple(row["keys"]))
            for row in rows
        ]

    async def _result(self, query: str, args: list[Any]) -> str:
        """The rows in an order of their own: what no ORDER BY fixes is no part of a result."""
        async with self._db.acquire() as connection:
            try:
                rows = await connection.fetch(query, *args)
            except asyncpg.PostgresError as error:
                return f"error {type(error).__name__}"
        return str(sorted(repr(tuple(row.items())) for row in rows))
