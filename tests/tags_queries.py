"""Random queries over random relations, for the oracle of automatic tags; see tests/tags_oracle.py.

Owns: their texts. Values come from small sets, so that conditions meet rows, and keys meet keys.

Every query gives the same rows each time as long as nothing changes: what is limited or numbered has a total
order.
"""

from __future__ import annotations

import uuid
from random import Random
from typing import Any

import msgspec

INTS = [0, 1, 2, 3, 4, None]
TEXTS = ["", "a", "b", "a,b", "x:y", None]
UUIDS = [uuid.UUID(int=n) for n in range(4)]
KINDS = ["int", "bigint", "text", "uuid", "varchar(5)"]
Column = tuple[str, str]  # name, type


class Relation(msgspec.Struct):
    """Something that can stand in FROM. keys: columns that its watch names rows by. writable: a table."""

    name: str
    columns: list[Column]
    keys: list[str] = []
    writable: bool = False


def value(rng: Random, kind: str, *, null: bool = True) -> Any:
    pool: list[Any] = {"text": TEXTS, "varchar(5)": TEXTS, "uuid": [*UUIDS, None]}.get(kind, INTS)
    return rng.choice(pool if null else pool[:-1])


def literal(given: Any) -> str:
    if given is None:
        return "null"
    return str(given) if isinstance(given, int) else "'" + str(given).replace("'", "''") + "'"


class Queries:
    """Makes queries over relations that others make."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.tables: list[Relation] = []
        self.others: list[Relation] = []  # partitions, children, views
        self.functions: list[str] = []  # of one int
        self._names = 0

    def query(self) -> tuple[str, list[Any]]:
        """A query with its arguments; one in thirty must be refused, since it depends on the clock or on
        chance.
        """
        args: list[Any] = []
        if self.rng.random() < 0.5:
            return self._pointed(args), args
        text, _columns = self.select(args, 0)
        if self.rng.random() < 0.03:
            text = f"select *, {self.rng.choice(['clock_timestamp()', 'random()', 'now()'])} from ({text}) q"
        return text, args

    def _pointed(self, args: list[Any]) -> str:
        """A query around one condition on the key of a watched table."""
        rng = self.rng
        alias, other = self._name("q"), self._name("q")
        tables = [one for one in [*self.tables, *self.others] if one.keys] or self.tables
        table, beside = rng.choice(tables), rng.choice(self.tables + self.others)
        kinds = dict(table.columns)
        keys = table.keys or ["k"]
        if rng.random() < 0.15:
            keys = keys[:1]
        word = rng.choice(["=", "=", "=", "=", "= any", "= any", "<> all", "<>", ">"])
        parts = []
        for key in keys:
            if word in ("= any", "<> all"):
                args.append([value(rng, kinds[key], null=False) for _ in range(rng.randint(1, 3))])
                base = "text" if kinds[key] == "varchar(5)" else kinds[key]
                parts.append(f"{alias}.{key} {word} (${len(args)}::{base}[])")
            else:
                parts.append(f"{alias}.{key} {word} {self._value(args, kinds[key])}")
        on = rng.choice(["{}", "{}", "{}", "not ({})", "({} or {o})", "({} and {o})"])
        point = on.replace("{o}", self._condition(None, [(alias, table)], 2)).replace("{}", " and ".join(parts))
        names = [name for name, _kind in table.columns]
        whole, order = f"w.{table.name} {alias}", ", ".join(f"{name}::text" for name in names)
        inner = ", ".join(names)
        form = rng.choice([
            "select * from {whole} where {point}", "select * from {whole} where {point}",
            "select count(*), count({alias}.a) from {whole} where {point}",
            "select * from w.{beside} {other} {join} join {whole} on {point}",
            "select * from {whole} {join} join w.{beside} {other} on {point}",
            "select * from {whole} {join} join w.{beside} {other} on true where {point}",
            "select * from w.{beside} {other} {join} join {whole} on true where {point}",
            "select * from (select {inner} from w.{table} order by {order} limit 2) {alias} where {point}",
            "select * from (select {inner} from w.{table} order by {order} limit 1) {alias} where {point}",
            "select * from (select {inner}, count(*) over () as n from w.{table}) {alias} where {point}",
            "select * from (select {inner}, count(*) over () as n from w.{table}) {alias} where {point}",
            "select * from (select {inner}, count(*) as n, max(c) as m from w.{table} group by {inner}) {alias}"
            " where {point}",
            "select * from (select * from w.{table}) {alias} where {point}",
            "select * from w.{beside} {other} where exists (select from {whole} where {point})",
            "with {other} as (select * from {whole} where {point}) select * from {other}",
            "select (select sum(c) from {whole} where {point}) from w.{beside} {other}, generate_series(1, 2)",
            "select * from {whole} where {point} union select * from {whole} where c = 1",
        ])  # fmt: skip
        if self.functions and rng.random() < 0.15:
            called = f"w.{rng.choice(self.functions)}({rng.choice([f'{alias}.c', '1', '2'])})"
            form = rng.choice(["select {called} as n, {alias}.c from {whole} where {point}",
                               "select * from {whole} where {point} and {called} > 1"])  # fmt: skip
            form = form.replace("{called}", called)
        pairs = [(key, name) for key in keys for name, kind in beside.columns if kind == kinds[key]]
        if pairs and rng.random() < 0.2:
            key, name = rng.choice(pairs)
            equal = f"{alias}.{key} = {other}.{name}"
            side = rng.choice([f"{other}.{name}", f"{alias}.{key}"])
            fixed = f"{side} = {literal(value(rng, kinds[key], null=False))}"
            args.clear()
            form = rng.choice([
                "select * from w.{beside} {other} {join} join {whole} on {equal} where {fixed}",
                "select * from {whole} {join} join w.{beside} {other} on {equal} where {fixed}",
                "select * from w.{beside} {other} {join} join {whole} on {equal} and {fixed}",
                "select * from w.{beside} {other} {join} join {whole} on {fixed} where {equal}",
            ]).replace("{equal}", equal).replace("{fixed}", fixed)  # fmt: skip
        return form.format(
            whole=whole, point=point, alias=alias, beside=beside.name, other=other, inner=inner, order=order,
            table=table.name, join=rng.choice(["inner", "left", "right"]),
        )  # fmt: skip

    def select(self, args: list[Any] | None, depth: int) -> tuple[str, list[Column]]:
        rng = self.rng
        if depth < 2 and rng.random() < 0.08:
            return self._union(args, depth)
        common, text = "", ""
        scope: list[tuple[str, Relation]] = []
        for _item in range(rng.choice([1, 1, 1, 2, 2, 3])):
            alias = self._name("q")
            source, relation = self._source(args, depth)
            if depth < 2 and rng.random() < 0.12:
                name = self._name("cte")
                common += f"{', ' if common else 'with '}{name} as (select * from {source} {alias})"
                source = name
            before = [*scope]
            scope.append((alias, relation))
            if not text:
                text = f"{source} {alias}"
                continue
            join = rng.choice([",", "join", "left join", "left join", "right join", "full join"])
            if join == ",":
                text += f" cross join {source} {alias}"
            else:
                text += f" {join} {source} {alias} on {self._on(args, before, scope[-1], depth, join)}"
        where = f" where {self._condition(args, scope, depth)}" if rng.random() < 0.8 else ""
        if where and rng.random() < 0.3:
            where += "".join(f" and {self._condition(args, [one], depth, 2)}" for one in scope)
        listed, behind, columns = self._list(scope, args, depth)
        return f"{common} select {listed} from {text}{where}{behind}".strip(), columns

    def _union(self, args: list[Any] | None, depth: int) -> tuple[str, list[Column]]:
        kind = self.rng.choice(["union", "union all", "except", "intersect"])
        sides = []
        for _side in (0, 1):
            text, columns = self.select(args, depth + 1)
            sides.append(f"select {columns[0][0]}::text as u from ({text}) {self._name('q')}")
        return f"{sides[0]} {kind} {sides[1]}", [("u", "text")]

    def _source(self, args: list[Any] | None, depth: int) -> tuple[str, Relation]:
        rng = self.rng
        if depth < 2 and rng.random() < 0.15:
            text, columns = self.select(args, depth + 1)
            return f"({text})", Relation("", columns)
        relation = rng.choice(self.tables * 2 + self.others)
        return ("" if rng.random() < 0.3 else "w.") + relation.name, relation

    def _list(
        self, scope: list[tuple[str, Relation]], args: list[Any] | None, depth: int
    ) -> tuple[str, str, list[Column]]:
        rng = self.rng
        given = [(f"{alias}.{name}", kind) for alias, relation in scope for name, kind in relation.columns]
        chosen = rng.sample(given, min(len(given), rng.randint(1, 3)))
        named = [(f"o{place}", kind) for place, (_column, kind) in enumerate(chosen)]
        plain = ", ".join(f"{column} as {name}" for (column, _), (name, _kind) in zip(chosen, named, strict=True))
        order = ", ".join(str(place + 1) for place in range(len(chosen)))
        numbers = [column for column, kind in given if kind in ("int", "bigint")]
        style = rng.random()
        if style < 0.55:
            return plain, "", named
        if style < 0.65:
            return plain, f" order by {order} limit {rng.randint(1, 3)} offset {rng.choice([0, 0, 1])}", named
        if style < 0.7:
            return f"distinct {plain}", "", named
        if style < 0.75 and depth == 0:
            over = ", ".join(column for column, _kind in given)
            return f"{plain}, row_number() over (order by {over}) as n, count(*) over () as m", "", named
        total = f"sum({rng.choice(numbers)})" if numbers else "count(1)"
        sums = f"count(*) as n, {total} as m"
        if style < 0.85 or not chosen:
            return sums, "", [("n", "bigint"), ("m", "numeric")]
        having = rng.choice(["", "", " having count(*) > 1"])
        return f"{plain}, {sums}", f" group by {order}{having}", [*named, ("n", "bigint"), ("m", "numeric")]

    def _on(
        self,
        args: list[Any] | None,
        before: list[tuple[str, Relation]],
        new: tuple[str, Relation],
        depth: int,
        join: str,
    ) -> str:
        rng = self.rng
        alias, relation = new
        pairs = [
            f"{other}.{name} = {alias}.{mine}"
            for other, its in before
            for name, kind in its.columns
            for mine, my_kind in relation.columns
            if kind == my_kind
        ]
        equal = rng.choice(pairs) if pairs else "true"
        if join == "full join" and pairs:
            return equal
        if rng.random() < 0.4:
            return equal
        condition = self._condition(args, [*before, new], depth)
        return f"{equal} and {condition}" if rng.random() < 0.5 else condition

    def _condition(
        self, args: list[Any] | None, scope: list[tuple[str, Relation]], depth: int, level: int = 0
    ) -> str:
        rng = self.rng
        way = rng.random()
        if level < 2 and way < 0.45:
            one = self._condition(args, scope, depth, level + 1)
            if way > 0.38:
                return f"not ({one})"
            word = "and" if way < 0.27 else "or"
            return f"({one} {word} {self._condition(args, scope, depth, level + 1)})"
        alias, relation = rng.choice(scope)
        keys = [(name, kind) for name, kind in relation.columns if name in relation.keys]
        if way < 0.62 and len(keys) > 1:
            return " and ".join(f"{alias}.{name} = {self._value(args, kind)}" for name, kind in keys)
        name, kind = rng.choice(keys) if keys and rng.random() < 0.7 else rng.choice(relation.columns)
        column = f"{alias}.{name}"
        if kind not in (*KINDS, "int", "text"):
            return f"{column} is not null"
        if way < 0.74:
            sides = [column, self._value(args, kind)]
            return " = ".join(sides if rng.random() < 0.8 else sides[::-1])
        if way < 0.82:
            return self._among(args, column, kind)
        if way < 0.87:
            form = rng.choice(["{0} is null", "{0} <> {1}", "{0} > {1}", "coalesce({0} = {0}, false)",
                               "case when {0} = {1} then true else {2} is null end"])  # fmt: skip
            return form.format(column, self._value(args, kind) if "{1}" in form else "", alias)
        if way < 0.91 and kind == "int" and self.functions:
            return f"w.{rng.choice(self.functions)}({column}) {rng.choice(['=', '>'])} {rng.randint(0, 4)}"
        if depth < 2:
            return self._sublink(args, column, kind, scope, depth)
        return f"{column} = {self._value(args, kind)}"

    def _sublink(
        self, args: list[Any] | None, column: str, kind: str, scope: list[tuple[str, Relation]], depth: int
    ) -> str:
        rng = self.rng
        source, relation = self._source(args, depth + 1)
        alias = self._name("q")
        inner = self._condition(args, [(alias, relation), *scope][: rng.choice([1, 2])], depth + 1)
        same = [name for name, its in relation.columns if its == kind]
        if same and rng.random() < 0.6:
            way = rng.choice(["in", "not in", "= any", "<>"])
            if way == "<>":
                most = f"max({alias}.{same[0]}::text)::{kind}"
                return f"{column} <> (select {most} from {source} {alias} where {inner})"
            return f"{column} {way} (select {alias}.{rng.choice(same)} from {source} {alias} where {inner})"
        return f"{rng.choice(['', 'not '])}exists (select from {source} {alias} where {inner})"

    def _among(self, args: list[Any] | None, column: str, kind: str) -> str:
        rng = self.rng
        values = [value(rng, kind, null=False) for _ in range(rng.randint(1, 3))]
        if args is not None and rng.random() < 0.5:
            args.append(values)
            base = "text" if kind == "varchar(5)" else kind
            return f"{column} {rng.choice(['= any', '= any', '<> all'])} (${len(args)}::{base}[])"
        return f"{column} {rng.choice(['in', 'in', 'not in'])} ({', '.join(map(literal, values))})"

    def _value(self, args: list[Any] | None, kind: str) -> str:
        given = value(self.rng, kind, null=self.rng.random() < 0.1)
        if args is not None and self.rng.random() < 0.5:
            args.append(given)
            return f"${len(args)}::{kind}"
        return f"{literal(given)}::{kind}" if given is None or kind == "uuid" else literal(given)

    def _name(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names}"
