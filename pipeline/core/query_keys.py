"""Which rows of a table a query can depend on, by its predicates.

Owns: finding `key = value` conditions in a query's tree. Knows no catalog and no tags.

Theory of operation
    A table in FROM may be narrowed to the rows with `column = value` when no row with another value can have
    any part in the result.

    A condition that stands alone or under AND in WHERE does this for every table of the same FROM, under outer
    joins too. What passes WHERE contains a row of the table with that value: `=` is never true of the nulls that
    an outer join fills in. And which joined rows contain one given row of the table does not depend on the
    table's other rows: those can only make or unmake rows that contain themselves, or that contain nulls in
    place of the table's row. Both kinds WHERE throws away. What comes later (grouping, HAVING, windows, LIMIT)
    sees only what passed.

    A condition in ON does it for the tables on those sides of its join whose rows vanish when they match nothing:
    both sides of an inner join, the right one of a left join, the left one of a right join. The rows of the
    other side stay whatever ON says.

    A condition `one = other` between columns passes a value on. Once the rows of one table with other values
    have no part in the result, the query may as well be asked with that table cut down to the rest; there the
    condition is one with a value, and narrows the other table by the rules above.

    A condition on a column of a view or a subquery holds for the column of the table behind it, as long as the
    query in between only joins and filters. With aggregates, LIMIT or windows other rows count.

    OR, NOT, CASE and the like narrow nothing, nor does an expression around the column.

    Equality has to be identity, so that the value is written as the trigger wrote the row's key: whole numbers,
    uuid, bool, and text under a collation that is known to tell all texts apart.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from pipeline.core.query_tree import Item, Node, queries

Family: TypeAlias = Literal["int", "text", "uuid", "bool"]

_FAMILY: dict[int, Family] = {20: "int", 21: "int", 23: "int", 25: "text", 1043: "text", 2950: "uuid", 16: "bool"}
_ARRAYS: dict[int, Family] = {1016: "int", 1005: "int", 1007: "int", 1009: "text", 1015: "text", 2951: "uuid"}
_EQUALITY: dict[int, Family] = {
    **dict.fromkeys((15, 94, 96, 410, 416, 532, 533, 1862, 1868), "int"),
    98: "text",
    2972: "uuid",
    91: "bool",
}
_IDENTICAL = frozenset({0, 100, 950, 951})  # no collation, the database's own, C and POSIX: all deterministic
INNER, LEFT, RIGHT = 0, 1, 3  # JoinType
RELATION, SUBQUERY = 0, 1  # RTEKind


class Param(msgspec.Struct, frozen=True):
    """A parameter of the query, counted from 1; `many`: an array of which each element counts."""

    number: int
    family: Family
    many: bool = False


Values: TypeAlias = "tuple[str | Param, ...]"
Place: TypeAlias = "tuple[int, int]"  # of a column: its table in FROM, and its number there


class Access(msgspec.Struct, frozen=True):
    """One table in one FROM. fixed: by column number, the values outside of which rows do not count."""

    relation: int
    fixed: dict[int, Values]


class Narrowing:
    """Collects the accesses of trees. view_of: the definition of a view, None for what is no view.
    little_endian: how the server writes numbers. parameters: whether `$1` is the query's own, not that of a
    function's body.
    """

    def __init__(
        self, view_of: Callable[[int], Item], *, little_endian: bool = True, parameters: bool = True
    ) -> None:
        self.found: list[Access] = []
        self._equal: list[
            tuple[Place, Place]
        ] = []  # of the query in hand: a value of the first narrows the second
        self._view_of = view_of
        self._little = little_endian
        self._parameters = parameters

    def add(self, query: Node, pushed: dict[int, Values] | None = None, view: int = 0) -> None:
        """Collect from one SELECT. pushed: what its user fixed of its columns. view: the view that it defines."""
        fixed: dict[Place, Values] = {}
        self._equal = []
        tree = query.node("jointree")
        if tree is not None:
            tables: set[int] = set()
            for item in tree.nodes("fromlist"):
                tables |= self._join(item, fixed)
            self._conditions(tree.node("quals"), tables, fixed)
        if pushed and _only_filters(query):
            for target in query.nodes("targetList"):
                column = _column(target.node("expr"))
                if column and target.number("resno") in pushed:
                    fixed.setdefault(column[0], pushed[target.number("resno")])
        _pass_on(fixed, self._equal)
        seen: set[int] = set()
        for place, entry in enumerate(query.nodes("rtable"), start=1):
            here = {column: values for (table, column), values in fixed.items() if table == place}
            if entry.number("rtekind") == RELATION and entry.number("relid") != view:
                self._relation(entry.number("relid"), here)
            subquery = entry.node("subquery")
            if entry.number("rtekind") == SUBQUERY and subquery is not None:
                seen.add(id(subquery))
                self.add(subquery, here, view)
        self._nested(query, seen, view)

    def _relation(self, relation: int, fixed: dict[int, Values]) -> None:
        definition = self._view_of(relation)
        if definition is None:
            self.found.append(Access(relation, fixed))
        for query in queries(definition):
            self.add(query, fixed, relation)

    def _nested(self, query: Node, seen: set[int], view: int) -> None:
        """Queries in other places than FROM: common tables, sublinks, arguments of functions in FROM."""
        todo: list[Item] = [query.fields[label] for label in query.fields]
        while todo:
            item = todo.pop()
            if isinstance(item, list):
                todo.extend(item)
            elif isinstance(item, Node) and item.tag == "QUERY":
                if id(item) not in seen:
                    self.add(item, None, view)
            elif isinstance(item, Node):
                todo.extend(item.fields.values())

    def _join(self, item: Node, fixed: dict[Place, Values]) -> set[int]:
        """The tables of an item of FROM; what its ON conditions fix goes into `fixed`."""
        if item.tag == "RANGETBLREF":
            return {item.number("rtindex")}
        if item.tag != "JOINEXPR":
            return set()
        left, right = item.node("larg"), item.node("rarg")
        on_left = self._join(left, fixed) if left else set()
        on_right = self._join(right, fixed) if right else set()
        kind = item.number("jointype")
        free = (on_left if kind in (INNER, RIGHT) else set()) | (on_right if kind in (INNER, LEFT) else set())
        self._conditions(item.node("quals"), free, fixed)
        return on_left | on_right

    def _conditions(self, node: Node | None, tables: set[int], fixed: dict[Place, Values]) -> None:
        if node is None:
            return
        if node.tag == "BOOLEXPR" and node.text("boolop") == "and":
            for part in node.nodes("args"):
                self._conditions(part, tables, fixed)
            return
        self._equal += [pair for pair in _pairs(node) if pair[1][0] in tables]
        condition = self._equality(node)
        if condition is not None and condition[0][0] in tables:
            place, values = condition
            if place not in fixed or len(values) < len(fixed[place]):
                fixed[place] = values

    def _equality(self, node: Node) -> tuple[Place, Values] | None:
        """`column = value`, either way round, or `column = any (values)`."""
        family = _EQUALITY.get(node.number("opno")) if node.tag in ("OPEXPR", "SCALARARRAYOPEXPR") else None
        arguments = node.nodes("args")
        if family is None or len(arguments) != 2 or node.number("inputcollid") not in _IDENTICAL:
            return None
        for one, other in (arguments, arguments[::-1]):
            column = _column(one)
            if column is None or column[1] != family:
                continue
            if node.tag == "OPEXPR":
                value = self._value(other, family)
                return None if value is None else (column[0], (value,))
            if node.is_set("useOr") and one is arguments[0]:
                values = self._values(other, family)
                return None if values is None else (column[0], values)
        return None

    def _values(self, node: Node, family: Family) -> Values | None:
        node = _bare(node)
        if node.tag == "PARAM":
            own = self._parameters and node.number("paramkind") == 0
            many = own and _ARRAYS.get(node.number("paramtype")) == family
            return (Param(node.number("paramid"), family, many=True),) if many else None
        if node.tag in ("ARRAYEXPR", "ARRAY") and not node.is_set("multidims"):
            values = [self._value(element, family) for element in node.nodes("elements")]
            found = tuple(value for value in values if value is not None)
            return found if found and len(found) == len(values) else None
        return None

    def _value(self, node: Node, family: Family) -> str | Param | None:
        node = _bare(node)
        if node.tag == "PARAM" and self._parameters and node.number("paramkind") == 0:
            return (
                Param(node.number("paramid"), family) if _FAMILY.get(node.number("paramtype")) == family else None
            )
        if node.tag == "CONST" and _FAMILY.get(node.number("consttype")) == family:
            return constant(node, family, little_endian=self._little)
        return None


def _pairs(node: Node) -> list[tuple[Place, Place]]:
    """The two columns that a condition holds to be equal, both ways round."""
    family = _EQUALITY.get(node.number("opno")) if node.tag == "OPEXPR" else None
    columns = [_column(argument) for argument in node.nodes("args")]
    if family is None or len(columns) != 2 or node.number("inputcollid") not in _IDENTICAL:
        return []
    one, other = columns
    if one is None or other is None or one[1] != family or other[1] != family:
        return []
    return [(one[0], other[0]), (other[0], one[0])]


def _pass_on(fixed: dict[Place, Values], equal: list[tuple[Place, Place]]) -> None:
    """Let equal columns have equal values, as far as that goes."""
    size = -1
    while len(fixed) > size:
        size = len(fixed)
        for one, other in equal:
            if one in fixed:
                fixed.setdefault(other, fixed[one])


def constant(node: Node, family: Family, *, little_endian: bool) -> str | None:
    """The text of a constant as a trigger would write it, or None where it cannot be told."""
    words = node.fields.get("constvalue")
    if node.is_set("constisnull") or not isinstance(words, list) or "[" not in words:
        return None
    raw = bytes(int(word) & 255 for word in words[2:-1] if isinstance(word, str))
    order: Literal["little", "big"] = "little" if little_endian else "big"
    if family in ("int", "bool"):
        number = int.from_bytes(raw, order, signed=True)
        return str(number) if family == "int" else ("true" if number else "false")
    if family == "uuid":
        return str(uuid.UUID(bytes=raw)) if len(raw) == 16 else None
    header = int.from_bytes(raw[:4], order)
    text = raw[4:]
    whole = (header >> 2 if little_endian else header) == len(raw)
    return text.decode("ascii") if whole and text.isascii() else None


def written(args: Sequence[Any], param: Param) -> list[str] | None:
    """An argument's values as a trigger would write them; None where that cannot be told."""
    given = args[param.number - 1] if param.number <= len(args) else None
    if not param.many:
        given = [given]
    elif not isinstance(given, (list, tuple, set, frozenset)):
        return None
    texts = [_written(value, param.family) for value in given]
    found = [text for text in texts if text is not None]
    return found if found and len(found) == len(texts) else None


def _written(value: Any, family: Family) -> str | None:
    if family == "int" and isinstance(value, int):
        return str(int(value))
    if family == "text" and isinstance(value, str):
        return str.__str__(value)
    if family == "bool" and isinstance(value, bool):
        return "true" if value else "false"
    if family == "uuid" and isinstance(value, (str, uuid.UUID)):
        try:
            return str(uuid.UUID(str(value)))
        except ValueError:
            return None
    return None


def _bare(node: Node) -> Node:
    """Without the relabelling that varchar needs to be compared as text."""
    inner = node.node("arg") if node.tag == "RELABELTYPE" else None
    return inner if inner is not None and node.number("resulttype") in (25, 1009) else node


def _column(node: Node | None) -> tuple[Place, Family] | None:
    """The table and number of a column of this query's own FROM, and its family."""
    node = _bare(node) if node is not None else None
    if node is None or node.tag != "VAR" or node.number("varlevelsup") or node.number("varattno") <= 0:
        return None
    family = _FAMILY.get(node.number("vartype"))
    return ((node.number("varno"), node.number("varattno")), family) if family else None


def _only_filters(query: Node) -> bool:
    """Whether each row of a query comes from one set of joined rows, and no other rows have a say in it."""
    return not any(
        query.is_set(label) for label in ("hasAggs", "hasWindowFuncs", "hasTargetSRFs", "hasDistinctOn")
    ) and all(
        query.fields.get(label) is None
        for label in (
            "groupClause",
            "groupingSets",
            "havingQual",
            "distinctClause",
            "limitOffset",
            "limitCount",
            "setOperations",
            "windowClause",
        )
    )
