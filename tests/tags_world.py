"""Random schemas and changes for the oracle of automatic tags; see tests/tags_oracle.py.

Owns: their texts. The queries are those of tests/tags_queries.py.
"""

from __future__ import annotations

from random import Random

from tests.tags_queries import KINDS, Queries, Relation, literal, value


class World(Queries):
    """One random schema, `w`, behind an empty one, `s`, in the search_path."""

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self.made: list[str] = ["create schema w", "create schema s"]
        self.watches: list[str] = []
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
