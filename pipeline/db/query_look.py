"""One look at a query: its trees, and what the catalogs say of all that they refer to.

Owns: the walk from a query through views and functions to tables. Lives as long as one transaction. Which of
it is allowed, and what tags follow, is decided in pipeline/core.
"""

from __future__ import annotations

from typing import Any, TypeVar

import asyncpg
import msgspec

from pipeline.core.query_keys import Narrowing
from pipeline.core.query_plan import Plan, make_plan
from pipeline.core.query_reads import VOUCH, Reads, add_reads
from pipeline.core.query_rules import (
    Function,
    Relation,
    Type,
    Watched,
    check_function,
    check_parsed,
    check_relation,
    check_watched,
)
from pipeline.core.query_tree import Item, queries, read_tree
from pipeline.db.connection import Connection
from pipeline.db.pooler import configure
from pipeline.db.statements import statement
from pipeline.errors import NotCacheable

T = TypeVar("T", bound=msgspec.Struct)
_SENTINEL = 258  # its bytes are 2 and 1, in the server's own order


class Source(msgspec.Struct, frozen=True):
    """A text to be parsed as the body of a function: its name, and how its arguments are declared."""

    text: str
    name: str
    arguments: str


class Look:
    """Gathers what a query depends on. path: the session's search_path. domains: whether it makes values of a
    domain, whose checks are not followed: they decide nothing but whether there is a result.
    """

    def __init__(self, connection: Connection, *, path: str) -> None:
        self._connection = connection
        self._path = path
        self._columns: dict[int, set[int]] = {}  # of tables
        self._definitions: dict[int, Item] = {}  # of views
        self.domains = False
        self._bodies: list[Item] = []
        self._seen: set[tuple[str, int, str]] = set()

    async def plan(self, source: Source) -> Plan:
        """Raises NotCacheable with the reason."""
        tree = await self.check(source)
        sentinel, *rest = queries(tree)
        [target] = sentinel.nodes("targetList")
        constant = target.node("expr")
        words = constant.fields.get("constvalue") if constant else None
        little = isinstance(words, list) and words[2] == "2"
        found = Narrowing(self._definitions.get, little_endian=little)
        for query in rest:
            found.add(query)
        inner = Narrowing(self._definitions.get, little_endian=little, parameters=False)
        for body in self._bodies:
            for query in queries(body):
                inner.add(query)
        return make_plan([*found.found, *inner.found], await self._watches(), self._columns)

    async def check(self, source: Source) -> Item:
        """The tree of a query that does nothing but read, and why it is none: raises NotCacheable."""
        try:
            tree = await self._parse(source)
            await self._follow(tree, source.text, self._path)
        except RecursionError:
            raise NotCacheable("it is nested too deeply", hint=VOUCH) from None
        return tree

    async def _parse(self, source: Source) -> Item:
        """The tree of a text, behind that of the sentinel."""
        name = '"' + source.name.replace('"', '""') + '"'
        try:
            # prepared, which takes one statement only: the text of somebody else's function could end the body and
            # go on with statements of its own, under our role
            made = await self._connection.prepare(
                f"create function pg_temp.{name} ({source.arguments}) returns void language sql"
                f" begin atomic select {_SENTINEL}; {source.text}\n; end"
            )
            await made.fetch()
        except asyncpg.InsufficientPrivilegeError as error:
            if "temporary" not in str(error):
                raise
            raise NotCacheable(
                "this role may not make temporary objects, by which Postgres is asked for a query's tree",
                hint="grant temporary on database ... to the role, or pass tags=...",
            ) from error
        except (asyncpg.FeatureNotSupportedError, asyncpg.PostgresSyntaxError) as error:
            raise NotCacheable(f"it is no query that only reads: {error.message}", hint=VOUCH) from error
        except asyncpg.ReadOnlySQLTransactionError as error:
            raise NotCacheable("the server is a standby, which cannot parse it for us", hint=VOUCH) from error
        except asyncpg.InvalidFunctionDefinitionError as error:
            raise NotCacheable(
                f"Postgres cannot tell what its text means: {error.message}",
                hint="Give its arguments types of their own, or pass tags=...",
            ) from error
        text = await self._connection.fetchval(statement("cache/body"), source.name)
        return read_tree(text)

    async def _follow(self, tree: Item, source: str | None, path: str, view: int = 0) -> None:
        """Look at all that a tree refers to. source: the text that it was parsed from just now. path: the
        search_path under which functions that it calls are parsed.
        """
        reads = Reads()
        add_reads(reads, tree, source=source, view=view)
        self.domains |= reads.domains
        for relation in await self._rows(Relation, "cache/relations", [*reads.relations]):
            check_relation(relation)
            if relation.definition is None:
                self._columns.setdefault(relation.oid, set()).update(reads.relations[relation.oid])
            elif self._first("view", relation.oid, path):
                definition = read_tree(relation.definition)
                self._definitions[relation.oid] = definition
                with _Inside(f"the view {relation.name}"):
                    await self._follow(definition, None, path, view=relation.oid)
        await self._functions(reads, path)
        for kind in await self._rows(Type, "cache/types", [*reads.parsed_types]):
            check_parsed(kind)

    async def _functions(self, reads: Reads, path: str) -> None:
        numbers, operators = [*reads.functions], [*reads.operators]
        while numbers or operators:
            rows = await self._rows(Function, "cache/functions", numbers, operators)
            numbers, operators = [], []
            for function in rows:
                if not self._first("function", function.oid, path):
                    continue
                if not function.builtin:
                    numbers += function.parts
                if check_function(function):
                    with _Inside(f"the function {function.name}"):
                        await self._body(function, path)

    async def _body(self, function: Function, path: str) -> None:
        if function.defaults is not None:
            tree = read_tree(function.defaults)
            self._bodies.append(tree)
            await self._follow(tree, None, path)
        path = path if function.path is None else function.path
        if function.body is not None:
            tree, source = read_tree(function.body), None
        else:
            if function.definer and function.path is None:
                raise NotCacheable(
                    "its text is read with the rights of its owner and the search_path of whoever calls it",
                    hint="alter function ... set search_path = ..., or write it as begin atomic ... end.",
                )
            source = function.source
            tree = await self._parse_under(path, Source(source, function.name, function.arguments))
        self._bodies.append(tree)
        await self._follow(tree, source, path)

    async def _parse_under(self, path: str, source: Source) -> Item:
        if path == self._path:
            return await self._parse(source)
        await configure(self._connection, {"search_path": path}, local=True)
        tree = await self._parse(source)
        await configure(self._connection, {"search_path": self._path}, local=True)
        return tree

    async def _watches(self) -> dict[int, list[Watched]]:
        found: dict[int, list[Watched]] = {relation: [] for relation in self._columns}
        for row in await self._connection.fetch(statement("cache/watches"), [*self._columns]):
            names = dict(enumerate(row["names"] or (), start=1))
            watched = msgspec.convert(dict(row), Watched)
            check_watched(watched, self._columns[watched.relation], names)
            found[watched.relation].append(watched)
        return found

    async def _rows(self, kind: type[T], name: str, *numbers: list[int]) -> list[T]:
        """Rows of the catalogs; none is asked for none."""
        if not any(numbers):
            return []
        rows: list[Any] = await self._connection.fetch(statement(name), *numbers)
        return [msgspec.convert(dict(row), kind) for row in rows]

    def _first(self, what: str, number: int, path: str) -> bool:
        """Whether this is the first time that it is met under this search_path."""
        size = len(self._seen)
        self._seen.add((what, number, path))
        return len(self._seen) > size


class _Inside:
    """Says in a refusal where the cause stands."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, NotCacheable):
            raise NotCacheable(f"{error.message} (in {self._place})", hint=error.hint) from None
