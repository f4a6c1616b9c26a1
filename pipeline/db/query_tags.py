"""Finds what a query depends on by asking Postgres for the query's own tree.

Owns: how the tree is had, and how long what was found in it counts. What it means is decided in
pipeline/core/query_*.

Theory of operation
    Postgres is the parser. The query becomes the body of a function (`begin atomic ... end`) in the session's
    temporary schema, inside a transaction that is rolled back. Postgres stores such a body as the tree that
    parse analysis made of it, with every name resolved under the role, the search_path and the settings of the
    very pool that reads. Views bring their trees, functions of SQL theirs, or their text is made into a body in
    the same way. What the trees refer to is looked up in the catalogs, and the tables in pipeline.watch.

    What was found holds until somebody changes a definition. Such a change is told by the feed: as
    `pipeline.ddl`, or as an event of operation `w` of the table. `forget` then drops what was found before, and
    the cache drops what it loaded with that, even what was loaded after the change: its rows were right but its
    tags may not have been. An answer that was being worked out meanwhile is worked out again. So a query is
    answered by tags only under definitions of which nothing newer has been delivered; and an entry whose tags
    are wrong goes when the change that made them wrong is delivered, which is before any later change of data
    counts as delivered.

    The role and the settings that results may depend on are read once for each new connection of the pool, and
    are part of the key. When a new connection has other ones (alter role ... set), the older connections are
    replaced.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

import asyncpg

from pipeline.core.cache_policy import QueryTags
from pipeline.core.query_plan import DDL, Plan
from pipeline.db.connection import Connection, Database
from pipeline.db.pooler import OwnConnection, configure
from pipeline.db.query_look import Look, Source
from pipeline.db.statements import statement
from pipeline.errors import Busy, NotCacheable

MOST_PLANS = 2_000
ATTEMPTS = 5  # definitions that change this often while one query is looked at are not worth more


class QueryAnalyst:
    """Finds the tags of queries that run on the pool `db`, which has to be the one that reads them."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._plans: dict[str, Plan] = {}
        # one look for each text, and none waits for that at a query whose table somebody has locked
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._changes = 0
        self._settings: list[str] | None = None
        self._key = ""
        db.greet = self._greet

    @property
    def settings(self) -> list[str] | None:
        """The role and the settings of the sessions, as sql/cache/settings.sql lists them; None: none was seen."""
        return self._settings

    async def tags(self, sql: str, args: Sequence[Any]) -> QueryTags:
        """What the rows depend on, and the part of their key that stands for the role and the settings.

        A query that was seen before costs no call of the database. Raises NotCacheable with the reason,
        QueryFailed for what is no query, and what any use of the database raises.
        """
        plan = self._plans.get(sql)
        if plan is None:
            turn = self._turns.get(sql) or self._turns.setdefault(sql, asyncio.Lock())
            async with turn:
                plan = self._plans.get(sql) or await self._analyse(sql)
        return QueryTags(plan.tags(args), self._key)

    def forget(self, tag: str | None = None) -> None:
        """The definition of the table `tag` may have changed, or that of anything, where None or
        `pipeline.ddl`.
        """
        self._changes += 1
        if tag is None or tag == DDL:
            self._plans.clear()
        else:
            self._plans = {sql: plan for sql, plan in self._plans.items() if tag not in plan.tables}

    async def _analyse(self, sql: str) -> Plan:
        for _attempt in range(ATTEMPTS):
            before = self._changes
            try:
                async with self._db.acquire() as connection:
                    plan = await self._look(connection, sql)
            except NotCacheable as error:
                raise NotCacheable(
                    f"the tags of this query cannot be found: {error.message}", hint=error.hint
                ) from None
            if self._changes == before:
                while len(self._plans) >= MOST_PLANS:
                    del self._plans[next(iter(self._plans))]
                self._plans[sql] = plan
                return plan
        raise Busy("definitions keep changing while the query is looked at", hint="Ask again, or pass tags=...")

    async def _look(self, connection: Connection, sql: str) -> Plan:
        transaction = connection.transaction()
        await transaction.start()
        try:
            # the driver leaves what it prepares outside of a transaction unended, and then it is too late for this
            await connection.execute(statement("cache/analyse"))
            prepared = await connection.prepare(sql)  # refuses several statements, and tells the parameters' types
            types = [kind.oid for kind in prepared.get_parameters()]
            settings = await connection.fetchval(statement("cache/settings"))
            self._learn(settings)
            # our own DDL is nobody's news; the body is parsed, whether it fits the function's result does not
            # matter
            quiet = {"pipeline.own_ddl": "on", "check_function_bodies": "off"}
            await configure(connection, quiet, local=True)
            arguments = await connection.fetchval(statement("cache/parameters"), types)
            return await Look(connection, path=settings[3]).plan(Source(sql, "pgreflex_query", arguments))
        finally:
            # where the connection broke, the error that broke it is on its way
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await transaction.rollback()

    async def _greet(self, connection: OwnConnection) -> bool:
        """Look at a new connection's settings; whether those before it have to go."""
        known = self._settings is not None
        return self._learn(await connection.fetchval(statement("cache/settings"))) and known

    def _learn(self, settings: list[str]) -> bool:
        if settings == self._settings:
            return False
        self._settings = settings
        self._key = hashlib.sha256("\0".join(settings).encode()).hexdigest()[:16]
        self.forget()
        return True
