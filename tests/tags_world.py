"""Random schemas, queries and changes for the oracle of automatic tags; see tests/tags_oracle.py.

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


class World:
    """One random schema, `w`, behind an empty one, `s`, in the search_path."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.tables: list[Relation] = []
        self.others: list[Relation] = []  # partitions, children, views
        self.functions: list[str] = []  # of one int
        self.made: list[str] = ["create schema w", "create schema s"]
        self.watches: list[str] = []
        self._names = 0
        for number in range(rng.randint(2, 4)):
            self._table(f"t{number}")
        for number in range(rng.randint(1, 4)):
            self.made.append(self.view(f"v{number}"))
            if rng.random() < 0.5:
                self.made.append(self.function(f"f{number}"))

    def _table(self, name: str) -> None:
        rng = self.rng
        kind = rng.choice(KINDS)
        columns = [("k", kind), ("a", "int"), ("b", "text"), ("c", "int")]
        key = ["k"]
        if rng.random() < 0.3:
            columns.append(("l", rng.choice(["int", "text"])))
            key.append("l")
        shape = rng.choice(["plain", "plain", "hash", "list", "parent"])
        extra = ""
        earlier = [
            one for one in self.tables if len(one.keys) == 1 and one.keys == ["k"] and not one.name.startswith("p")
        ]
        if earlier and rng.random() < 0.5:
            other = rng.choice(earlier)
            columns.append(("r", dict(other.columns)["k"]))
            extra = (
                f", foreign key (r) references w.{other.name} (k) on update cascade"
                f" on delete {rng.choice(['cascade', 'set null'])}"
            )
        body = ", ".join(f"{column} {kind}" for column, kind in columns)
        body += f", primary key ({', '.join(key)}){extra}"
        if shape in ("hash", "list"):
            self.made.append(f"create table w.{name} ({body}) partition by {shape} (k)")
            low, high = value(rng, kind, null=False), "default"
            for place in (0, 1):
                bound = f"for values with (modulus 2, remainder {place})"
                if shape == "list":
                    bound = high if place else f"for values in ({literal(low)})"
                self.made.append(f"create table w.{name}_{place} partition of w.{name} {bound}")
                self.others.append(Relation(f"{name}_{place}", columns, writable=True))
        else:
            self.made.append(f"create table w.{name} ({body})")
            if shape == "parent":
                self.made.append(f"create table w.{name}_0 (x int) inherits (w.{name})")
                self.others.append(Relation(f"{name}_0", columns, writable=True))
        table = Relation(name, columns, key, writable=True)
        self.tables.append(table)
        for _row in range(rng.randint(0, 6)):
            self.made.append(self.insert(table))
        if rng.random() < 0.96:
            self.watches.append(self.watch(table))
        if rng.random() < 0.2:
            self.watches += [f"select pipeline.watch('w.{part}')" for part in (f"{name}_0", f"{name}_1")]

    def watch(self, table: Relation) -> str:
        rng = self.rng
        names = [name for name, _kind in table.columns]
        key = ["k", "l"] if "l" in names else ["k"]
        table.keys = rng.choice([key, key, key, ["a"], ["a", "b"], ["b"], []])
        for one in self.others:
            if one.name.startswith(f"{table.name}_"):
                one.keys = table.keys
        columns = "null"
        if rng.random() < 0.12:
            columns = "'{" + ",".join(rng.sample(names, len(names) - rng.randint(1, 2))) + "}'"
        return (
            f"select pipeline.watch('w.{table.name}', keys => '{{{','.join(table.keys)}}}', columns => {columns})"
        )

    def view(self, name: str) -> str:
        text, columns = self.select(None, 1)
        self.others = [one for one in self.others if one.name != name]
        self.others.append(Relation(name, columns))
        return f"create or replace view w.{name} as {text}"

    def function(self, name: str) -> str:
        if name not in self.functions:
            self.functions.append(name)
        source = self.rng.choice(self.tables + [one for one in self.others if one.name[0] == "v"])
        numbers = [column for column, kind in source.columns if kind in ("int", "bigint")]
        total = f"coalesce(sum({self.rng.choice(numbers)}), 0)" if numbers else "0"
        text = f"select count(*) + {total} from {self.rng.choice(['w.', ''])}{source.name}"
        if numbers:
            text += f" where {self.rng.choice(numbers)} {self.rng.choice(['=', '<>', '<'])} $1"
        inner = [one for one in self.functions if one < name]
        if inner and self.rng.random() < 0.4:
            text = f"select w.{self.rng.choice(inner)}($1)"
        made = f"create or replace function w.{name}(int) returns numeric language sql stable "
        return made + (f"begin atomic {text}; end" if self.rng.random() < 0.4 else f"as $body$ {text} $body$")

    # queries

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

    # changes

    def insert(self, table: Relation, *, into: str = "") -> str:
        names = ", ".join(name for name, _kind in table.columns)
        keys = [name for name, _kind in table.columns if name in ("k", "l")]
        rows = [
            "("
            + ", ".join(literal(value(self.rng, kind, null=name not in keys)) for name, kind in table.columns)
            + ")"
            for _ in range(self.rng.choice([1, 1, 2, 3]))
        ]
        return f"insert into w.{into or table.name} ({names}) values {', '.join(rows)} on conflict do nothing"

    def change(self) -> list[str]:
        """One transaction's statements; most change data, one in eight a definition."""
        rng = self.rng
        if rng.random() < 0.1:
            return [self._define()]
        written = [self._write() for _ in range(rng.choice([1, 1, 1, 2]))]
        return written

    def _write(self) -> str:
        rng = self.rng
        table = rng.choice(self.tables + [one for one in self.others if one.writable])
        name, kind = rng.choice(table.columns)
        keys = [column for column, _kind in table.columns if column in ("k", "l")]
        new = literal(value(rng, kind, null=name not in keys))
        if kind == "int" and rng.random() < 0.4:
            new = f"{name} + 1"
        where = f" where {self._condition(None, [(table.name, table)], 1)}"
        names = ", ".join(column for column, _kind in table.columns)
        style = rng.random()
        if style < 0.22:
            return self.insert(table)
        if style < 0.55:
            only = "only " if rng.random() < 0.1 else ""
            return f"update {only}w.{table.name} set {name} = {new}{where}"
        if style < 0.68:
            return f"delete from w.{table.name}{where}"
        if style < 0.72:
            return f"truncate w.{table.name} cascade"
        if style < 0.8:
            values = ", ".join(literal(value(rng, its, null=column not in keys)) for column, its in table.columns)
            return (
                f"insert into w.{table.name} ({names}) values ({values}) on conflict ({', '.join(keys)})"
                f" do update set {name} = {new.replace(name, 'excluded.' + name) if '+' in new else new}"
            )
        if style < 0.88:
            row = ", ".join(
                f"{literal(value(rng, its, null=False))}::{its} as {column}" for column, its in table.columns
            )
            when = rng.choice([f"update set {name} = m.{name}", "delete", "do nothing"])
            matched = " and ".join(f"t.{key} = m.{key}" for key in keys)
            listed = ", ".join(f"m.{column}" for column, _kind in table.columns)
            return (
                f"merge into w.{table.name} t using (select {row}) m on {matched} when matched then {when}"
                f" when not matched then insert ({names}) values ({listed})"
            )
        if style < 0.94:
            return (
                f"with d as (delete from w.{table.name}{where} returning *)"
                f" insert into w.{table.name} ({names}) select {names} from d on conflict do nothing"
            )
        return (
            f"do $do$ begin for n in 0..2 loop update w.{table.name} set {name} = {new}{where}; end loop;"
            " exception when others then null; end $do$"
        )

    def _define(self) -> str:
        rng = self.rng
        table = rng.choice(self.tables)
        views = [one.name for one in self.others if one.name[0] == "v"]
        parts = [one.name for one in self.others if one.name.startswith(f"{table.name}_")]
        ways = [
            self.watch(table),
            self.watch(table),
            self.watch(table),
            f"select pipeline.unwatch('w.{table.name}')",
            f"alter table w.{table.name} disable trigger user",
            f"create table s.{table.name} as select * from w.{table.name} limit 1",
        ]
        if rng.random() < 0.3:
            ways = [
                f"alter table w.{table.name} add column {self._name('x')} int default 1",
                f"alter table w.{table.name} rename column b to {self._name('b')}",
                f"alter table w.{table.name} disable trigger user",
                f"alter table w.{table.name} enable row level security",
                f"drop table w.{table.name} cascade",
                f"alter table w.{table.name} rename to {self._name('t')}",
                f"alter table w.{table.name} alter column a type bigint",
            ]
        if self.functions:
            ways += [self.function(rng.choice(self.functions)) for _ in range(3)]
            ways.append(f"alter function w.{rng.choice(self.functions)} volatile")
        if views:
            name = rng.choice(views)
            others, kept = self.others, [one for one in self.others if one.name < name or one.name[0] != "v"]
            self.others = kept  # a view must not come to read itself
            text, columns = self.select(None, 1)
            self.others = others
            view = next(one for one in others if one.name == name)
            if [kind for _name, kind in columns] == [kind for _name, kind in view.columns]:
                ways += [
                    f"create or replace view w.{name} ({', '.join(c for c, _ in view.columns)}) as {text}"
                ] * 6
            ways.append(f"create or replace view w.{name} as select * from w.{name} where false")
        if parts:
            part = rng.choice(parts)
            ways += [f"alter table w.{table.name} detach partition w.{part}", f"drop table w.{part} cascade",
                     f"alter table w.{part} no inherit w.{table.name}", f"truncate w.{part}"]  # fmt: skip
        return rng.choice(ways)
