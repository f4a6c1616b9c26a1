"""What a query reads, by the tree that parse analysis made of it.

Owns: which nodes of a tree are known, and what each of them says about relations, columns, functions and types.
Knows no catalog: whether what a query reads may be cached is decided in query_rules.py.

Everything that is not known to be harmless is refused, so that a newer Postgres with a new kind of node makes
queries that cannot be cached, and never wrong results.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable

import msgspec

from pipeline.core.query_tree import Item, Node, walk
from pipeline.errors import NotCacheable

VOUCH = "Pass tags=... to name yourself what the rows depend on."
SELECT = 1  # CmdType
RELATION, TUPLESTORE = 0, 7  # RTEKind
FIRST_CLOCK, LAST_CLOCK = 0, 8  # SQLValueFunctionOp: current_date to localtimestamp; the rest is in the key
COLUMN_OFFSET = 7  # selectedCols holds column numbers plus this; system columns are negative
TABLEOID = -6


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


# Names before Postgres 16, where they differ, stand behind the newer ones.
_PLAIN = words(
    """
    ALIAS FROMEXPR JOINEXPR RANGETBLREF TARGETENTRY VAR PARAM GROUPINGFUNC GROUPINGSET SUBLINK BOOLEXPR NULLTEST
    BOOLEANTEST SUBSCRIPTINGREF NAMEDARGEXPR FIELDSELECT RELABELTYPE ARRAYCOERCEEXPR CONVERTROWTYPEEXPR COLLATEEXPR
    COLLATE CASEEXPR CASE CASEWHEN WHEN CASETESTEXPR ARRAYEXPR ARRAY ROWEXPR ROW COALESCEEXPR COALESCE MINMAXEXPR
    MINMAX COERCETODOMAINVALUE COMMONTABLEEXPR CTESEARCHCLAUSE CTECYCLECLAUSE SETOPERATIONSTMT
    RANGETBLFUNCTION XMLEXPR JSONFORMAT JSONRETURNING JSONVALUEEXPR JSONCONSTRUCTOREXPR JSONISPREDICATE
    """
)
_FUNCTIONS = {"FUNCEXPR": "funcid", "AGGREF": "aggfnoid", "WINDOWFUNC": "winfnoid"}
_OPERATORS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("OPEXPR", "DISTINCTEXPR", "NULLIFEXPR", "SCALARARRAYOPEXPR"), ("opno",)),
    **dict.fromkeys(("ROWCOMPAREEXPR", "ROWCOMPARE"), ()),  # has a list of them
    "SORTGROUPCLAUSE": ("eqop", "sortop"),
}
_SPOKEN = {"TABLEFUNC": "XMLTABLE or JSON_TABLE", "JSONEXPR": "JSON_VALUE, JSON_QUERY or JSON_EXISTS"}

# bool, bytea, char, name, int8, int2, int4, text, oid, json, float4, float8, money, bpchar, varchar, interval,
# bit, varbit, numeric, uuid, jsonb, unknown, and arrays of numbers, texts and uuids: no constant of these is a
# time
_TIMELESS = frozenset(
    {16, 17, 18, 19, 20, 21, 23, 25, 26, 114, 700, 701, 790, 1042, 1043, 1186, 1560, 1562, 1700, 2950, 3802, 705}
    | {1005, 1007, 1016, 1009, 1015, 1231, 2951}
)
_CLOCK_WORDS = re.compile(r"(?<![a-z])(?:now|today|tomorrow|yesterday)(?![a-z])|\\|uescape", re.IGNORECASE)


class Reads(msgspec.Struct):
    """What trees refer to, by number: relations with the columns read of each (0 is the whole row), functions,
    operators, and the types whose text form is read when the query runs. domains: whether values become those of a
    domain, whose checks are not followed.
    """

    relations: defaultdict[int, set[int]] = msgspec.field(default_factory=lambda: defaultdict(set))
    functions: set[int] = msgspec.field(default_factory=set)
    operators: set[int] = msgspec.field(default_factory=set)
    parsed_types: set[int] = msgspec.field(default_factory=set)
    domains: bool = False


def add_reads(reads: Reads, tree: Item, *, source: str | None, view: int = 0) -> None:
    """Add what a tree reads. Raises NotCacheable for what no tag can stand for.

    source: the text that the tree was made from just now, None for a tree that was stored. view: the number of
    the view whose definition it is, which older versions list among its relations.
    """
    for node in walk(tree):
        _look(reads, node, source, view)


def _look(reads: Reads, node: Node, source: str | None, view: int) -> None:
    tag = node.tag
    if tag in _FUNCTIONS:
        reads.functions.add(node.number(_FUNCTIONS[tag]))
    elif tag in _OPERATORS:
        reads.operators.update({*map(node.number, _OPERATORS[tag]), *node.numbers("opnos")} - {0})
    elif tag == "WINDOWCLAUSE":
        reads.functions |= {node.number("startInRangeFunc"), node.number("endInRangeFunc")} - {0}
    elif tag == "COERCEVIAIO":
        reads.parsed_types.add(node.number("resulttype"))
    elif tag == "COERCETODOMAIN":
        reads.domains = True
    elif tag == "CONST":
        _constant(node, source)
    elif tag in ("RANGETBLENTRY", "RTE"):
        _range(reads, node, view)
    elif tag == "RTEPERMISSIONINFO":
        _columns(reads, node, view)
    elif tag in _CHECKS:
        _CHECKS[tag](node)
    elif tag not in _PLAIN:
        raise NotCacheable(f"it uses {_SPOKEN.get(tag, tag.lower())}, about which too little is known", hint=VOUCH)


def clock(what: str) -> NotCacheable:
    """The refusal of something that reads the clock."""
    return NotCacheable(
        f"it depends on the clock, by {what}: its rows change without any change of a table",
        hint="Pass the time as an argument, rounded as coarsely as you can bear, or "
        + VOUCH[0].lower()
        + VOUCH[1:],
    )


def _query(node: Node) -> None:
    if node.number("commandType") != SELECT:
        raise NotCacheable("it writes", hint="Only queries that read can be cached.")
    if node.is_set("hasForUpdate") or node.fields.get("rowMarks") is not None:
        raise NotCacheable("it locks rows (FOR UPDATE or FOR SHARE)", hint="Run it in a transaction of your own.")


def _range(reads: Reads, node: Node, view: int) -> None:
    kind, relation = node.number("rtekind"), node.number("relid")
    if kind == TUPLESTORE:
        raise NotCacheable("it reads a transition table", hint="Only triggers have those.")
    if kind == RELATION and relation != view:
        reads.relations[relation] |= set()
        _columns(reads, node, view)  # before Postgres 16


def _columns(reads: Reads, node: Node, view: int) -> None:
    relation = node.number("relid")
    if relation == view:
        return
    columns = {number - COLUMN_OFFSET for number in node.numbers("selectedCols")}
    if any(column < 0 and column != TABLEOID for column in columns):
        raise NotCacheable(
            "it reads a system column (ctid, xmin, ...), which changes without a change of the row",
            hint="Only tableoid can be cached.",
        )
    reads.relations[relation] |= columns


def _constant(node: Node, source: str | None) -> None:
    """'today'::date is a plain constant once parsed: only the text tells it from another day."""
    if source is not None and node.number("consttype") not in _TIMELESS and _CLOCK_WORDS.search(source):
        raise clock("a constant such as 'today', or a text that may hide one")


def _sample(node: Node) -> None:
    if node.number("tsmhandler") not in (3313, 3314):  # bernoulli, system
        raise NotCacheable("it samples a table by a method of an extension", hint=VOUCH)
    if node.node("repeatable") is None:
        raise NotCacheable("it takes another sample of a table each time", hint="Add REPEATABLE (seed).")


def _value(node: Node) -> None:
    if FIRST_CLOCK <= node.number("op") <= LAST_CLOCK:
        raise clock("a function such as current_date")


_CHECKS: dict[str, Callable[[Node], None]] = {
    "QUERY": _query,
    "TABLESAMPLECLAUSE": _sample,
    "SQLVALUEFUNCTION": _value,
}
