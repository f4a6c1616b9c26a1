"""Mistakes that automatic tags could have made, each seeded into what runs, for the oracle to find.

Owns: the mistakes. Each is a context that puts it in and takes it out again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from unittest.mock import patch

import pipeline.core.query_keys as keys
import pipeline.core.query_plan as plan
import pipeline.core.query_rules as rules
import pipeline.db.query_look as look
from pipeline.core.query_tree import Node
from pipeline.db.query_tags import QueryAnalyst
from tests.tags_oracle import Oracle

Bug = Callable[[Oracle], AbstractAsyncContextManager[None]]


def _patched(target: Any, name: str, make: Callable[[Any], Any]) -> Bug:
    """Replace an attribute by what `make` makes of it."""

    @asynccontextmanager
    async def seeded(_oracle: Oracle) -> AsyncIterator[None]:
        with patch.object(target, name, make(getattr(target, name))):
            yield

    return seeded


def _replaced(function: str, old: str, new: str) -> Bug:
    """Replace a piece of text in a function of the schema."""

    @asynccontextmanager
    async def seeded(oracle: Oracle) -> AsyncIterator[None]:
        sql = oracle.sql
        text = await sql.fetchval("select pg_get_functiondef($1::regprocedure)", function)
        assert old in text, f"{function} reads otherwise by now"
        await sql.execute(text.replace(old, new))
        try:
            yield
        finally:
            await sql.execute(text)

    return seeded


@asynccontextmanager
async def _deaf_to_ddl(oracle: Oracle) -> AsyncIterator[None]:
    oracle.tell = lambda event: event.name != plan.DDL
    try:
        yield
    finally:
        oracle.tell = lambda _event: True


def _both_sides(join: Any) -> Any:
    def wrong(self: Any, item: Node, fixed: Any) -> set[int]:
        if item.tag == "JOINEXPR":
            item.fields["jointype"] = str(keys.INNER)
        return join(self, item, fixed)  # type: ignore[no-any-return]

    return wrong


def _any_word(conditions: Any) -> Any:
    def wrong(self: Any, node: Node | None, tables: Any, fixed: Any) -> None:
        if node is not None and node.tag == "BOOLEXPR" and node.text("boolop") == "or":
            node.fields["boolop"] = "and"
        conditions(self, node, tables, fixed)

    return wrong


def _through_not(conditions: Any) -> Any:
    def wrong(self: Any, node: Node | None, tables: Any, fixed: Any) -> None:
        if node is not None and node.tag == "BOOLEXPR" and node.text("boolop") == "not":
            node = node.nodes("args")[0]
        conditions(self, node, tables, fixed)

    return wrong


def _some_key(make: Any) -> Any:
    def wrong(accesses: Any, watches: Any, relations: Any) -> Any:
        def shorter(watched: rules.Watched, access: keys.Access) -> rules.Watched:
            fixed = [key for key in watched.keys or () if key in access.fixed]
            return rules.Watched(watched.relation, watched.name, watched.top, watched.tag, fixed, None, None)

        found = []
        for access in accesses:
            one = {access.relation: [shorter(watched, access) for watched in watches[access.relation]]}
            found.append(make([access], one, [access.relation]))
        return plan.Plan(
            frozenset().union({plan.DDL}, *(one.whole for one in found)),
            tuple(keyed for one in found for keyed in one.keyed),
            frozenset().union(*(one.tables for one in found)),
        )

    return wrong


def _equality_of_anything(_original: Any) -> Any:
    return type("Anything", (dict,), {"get": lambda _self, number, _default=None: "int" if number else None})()


def _blind(follow: Any) -> Any:
    async def wrong(self: Any, tree: Any, source: Any, path: str, view: int = 0) -> None:
        if not view:
            await follow(self, tree, source, path, view)

    return wrong


@asynccontextmanager
async def _no_views(oracle: Oracle) -> AsyncIterator[None]:
    def make(accesses: Any, watches: Any, relations: Any) -> Any:
        return plan.make_plan([one for one in accesses if one.relation in watches], watches, relations)

    async with _patched(look.Look, "_follow", _blind)(oracle):
        with patch.object(look, "make_plan", make):
            yield


def _only_sees(check: Any) -> Any:
    def wrong(watched: rules.Watched, _read: Any, _columns: Any) -> None:
        check(watched, set(), {})

    return wrong


def _without(label: str) -> Callable[[Any], Any]:
    def make(nested: Any) -> Any:
        def wrong(self: Any, query: Node, seen: Any, view: int) -> None:
            query.fields.pop(label, None)
            nested(self, query, seen, view)

        return wrong

    return make


BUGS: dict[str, Bug] = {
    "the ON of an outer join narrows the side that stays": _patched(keys.Narrowing, "_join", _both_sides),
    "OR is read as AND": _patched(keys.Narrowing, "_conditions", _any_word),
    "NOT is overlooked": _patched(keys.Narrowing, "_conditions", _through_not),
    "a condition outside narrows a subquery with LIMIT, aggregates or windows": _patched(
        keys, "_only_filters", lambda _old: lambda _query: True
    ),
    "a part of a composite key narrows as the whole": _patched(look, "make_plan", _some_key),
    "of several values only the first counts": _patched(
        plan, "written", lambda old: lambda args, param: (old(args, param) or [])[:1] or None
    ),
    "any comparison counts as equality": _patched(keys, "_EQUALITY", _equality_of_anything),
    "views are not followed": _no_views,
    "functions of SQL are not followed": _patched(
        look, "check_function", lambda old: lambda function: old(function) and False
    ),
    "volatile functions and the clock pass": _patched(
        look, "check_function", lambda _old: lambda function: function.language == "sql"
    ),
    "columns that a watch leaves out are forgotten": _patched(look, "check_watched", _only_sees),
    "a watch with disabled triggers passes": _replaced(
        "pipeline.watched_over(oid[])", "pipeline.watch_problem(w)", "null::text"
    ),
    "a partition's own watch is enough": _replaced(
        "pipeline.watched_over(oid[])", "where not exists (select from pg_inherits i where i.inhrelid = u.above)",
        "where u.above = u.relation"
    ),
    "DDL is not told": _deaf_to_ddl,
    "what was found before a watch changed is kept": _patched(
        QueryAnalyst, "forget", lambda _old: lambda _self, _tag=None: None
    ),
    "an update tells only the new key": _replaced(
        "pipeline.first_statement(pipeline.watch,text)",
        "case when o.k = n.k then array[o.k] else nullif(array_remove(array[o.k, n.k], null), %L) end",
        "nullif(array_remove(array[n.k], null), %L)"
    ),
}  # fmt: skip
