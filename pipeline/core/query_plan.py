"""The tags of a query: found once, filled in with the arguments of each call.

Owns: how accesses and watches become tags. Knows no tree and no database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import msgspec

from pipeline.core.query_keys import Access, Param, Values, written
from pipeline.core.query_rules import Watched

DDL = "pipeline.ddl"  # changes with every DDL command that may matter to a query; see triggers/050_schema.sql
MOST_KEYS = 256  # as many as a trigger names


class Keyed(msgspec.Struct, frozen=True):
    """Rows of a table, by the values of its key's columns."""

    tag: str
    columns: tuple[Values, ...]

    def tags(self, args: Sequence[Any]) -> Iterable[str]:
        """One tag a key; the table's own where the keys cannot be told, or are too many."""
        choices: list[list[str]] = []
        number = 1
        for values in self.columns:
            texts: list[str] = []
            for value in values:
                found = written(args, value) if isinstance(value, Param) else [value]
                if found is None:
                    return (self.tag,)
                texts += found
            choices.append(texts)
            number *= len(texts)
        if number > MOST_KEYS:
            return (self.tag,)
        return [f"{self.tag}:{','.join(key)}" for key in product(*choices)]


class Plan(msgspec.Struct, frozen=True):
    """What a query depends on: whole tables, and rows by keys. tables: the tags of all tables that it reads."""

    whole: frozenset[str]
    keyed: tuple[Keyed, ...]
    tables: frozenset[str]

    def tags(self, args: Sequence[Any]) -> frozenset[str]:
        """The tags for these arguments."""
        if not self.keyed:
            return self.whole
        return self.whole.union(*(keyed.tags(args) for keyed in self.keyed))


def make_plan(
    accesses: Iterable[Access], watches: Mapping[int, Sequence[Watched]], relations: Iterable[int]
) -> Plan:
    """The plan of a query that reads `relations`, all of them watched; one without an access counts as a whole."""
    whole: set[str] = set()
    keyed: dict[Keyed, None] = {}
    seen: set[int] = set()
    for access in accesses:
        seen.add(access.relation)
        for watched in watches[access.relation]:
            tag, keys = watched.tag or watched.top, watched.keys or []
            if keys and all(key in access.fixed for key in keys):
                keyed[Keyed(tag, tuple(access.fixed[key] for key in keys))] = None
            else:
                whole.add(tag)
    for relation in set(relations) - seen:
        whole.update(watched.tag or watched.top for watched in watches[relation])
    tables = {watched.tag or watched.top for rows in watches.values() for watched in rows}
    return Plan(frozenset(whole | {DDL}), tuple(one for one in keyed if one.tag not in whole), frozenset(tables))
