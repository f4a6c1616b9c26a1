"""Plans of queries, without the values of anybody.

Owns: what is kept of what EXPLAIN (FORMAT JSON) says, which plans are the same, and a plan in one line. Must not
know where a plan comes from. How it is written out is in plan_text.py.

Only fields that are known are kept, so a field of a newer Postgres cannot carry a value into what is stored. Names
are kept as they are; in expressions each literal becomes `?`.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Any, TypeAlias

from pipeline.core.sql_lexer import Kind, token_at

Node: TypeAlias = dict[str, Any]

MAX_SUMMARY = 1_000  # characters
_DEPTH = 200  # deeper nodes are dropped; Postgres itself gives up at some thousands
_SETTINGS_OF_OURS = frozenset({"plan_cache_mode", "enable_partition_pruning"})
ALIKE = "Plans Alike"  # a field of ours: so many of the plans below an Append differ in their partitions only

# names, and words of Postgres's own
_NAMES = frozenset(
    {
        "Node Type", "Strategy", "Partial Mode", "Operation", "Parent Relationship", "Subplan Name", "Join Type",
        "Relation Name", "Schema", "Alias", "Index Name", "CTE Name", "Function Name", "Table Function Name",
        "Tuplestore Name", "Custom Plan Provider", "Scan Direction", "Command", "Conflict Resolution",
        "Conflict Arbiter Indexes", "Sort Method", "Sort Space Type", "Sort Methods Used", "Cache Mode", "Storage",
        "Sampling Method",
    }
)  # fmt: skip
_EXPRESSIONS = frozenset(
    {
        "Filter", "Index Cond", "Recheck Cond", "TID Cond", "Hash Cond", "Merge Cond", "Join Filter",
        "One-Time Filter", "Order By", "Sort Key", "Presorted Key", "Group Key", "Group Keys", "Hash Key",
        "Hash Keys", "Cache Key", "Conflict Filter", "Run Condition", "Window", "Sampling Parameters",
        "Grouping Sets",
    }
)  # fmt: skip
# numbers and yes or no
_FIGURES = frozenset(
    {
        "Startup Cost", "Total Cost", "Plan Rows", "Plan Width", "Parallel Aware", "Async Capable", "Single Copy",
        "Inner Unique", "Disabled", "Workers Planned", "Workers Launched", "Subplans Removed",
        "Planned Partitions",
        "Actual Rows", "Actual Loops", "Actual Startup Time", "Actual Total Time", "Rows Removed by Filter",
        "Rows Removed by Index Recheck", "Rows Removed by Join Filter", "Rows Removed by Conflict Filter",
        "Heap Fetches", "Exact Heap Blocks", "Lossy Heap Blocks", "Index Searches", "Sort Space Used",
        "Hash Buckets", "Original Hash Buckets", "Hash Batches", "Original Hash Batches", "Peak Memory Usage",
        "HashAgg Batches", "Disk Usage", "Maximum Storage", "Cache Hits", "Cache Misses", "Cache Evictions",
        "Cache Overflows", "Full-sort Groups", "Pre-sorted Groups", "Tuples Inserted", "Conflicting Tuples",
    }
)  # fmt: skip
# of a node, what makes it another plan
_SHAPE = (
    "Node Type", "Strategy", "Partial Mode", "Operation", "Parent Relationship", "Subplan Name", "Join Type",
    "Schema", "Relation Name", "Index Name", "CTE Name", "Function Name", "Scan Direction", "Conflict Resolution",
)  # fmt: skip
_PARTITION = frozenset({"Schema", "Relation Name", "Index Name"})
_APPENDS = frozenset({"Append", "Merge Append"})
_NUMBERED = re.compile(r"(SubPlan|InitPlan) $")


def kept(node: Node, depth: int = 0) -> Node:
    """A node and those below it, without literals and without what is not known."""
    out: Node = {}
    for name, value in node.items():
        if name == "Plans":
            if depth < _DEPTH:
                below = [kept(one, depth + 1) for one in value if isinstance(one, dict)]
                out[name] = _united(below) if node.get("Node Type") in _APPENDS else below
        elif name in _NAMES:
            if _texts(value):
                out[name] = value
        elif name in _FIGURES:
            if isinstance(value, bool | int | float):
                out[name] = value
        elif name in _EXPRESSIONS:
            out[name] = _masked(value)
    return out


def _united(plans: list[Node]) -> list[Node]:
    """One of all plans that differ in their partitions only; a table has hundreds, and more every day."""
    first: dict[str, Node] = {}
    for one in plans:
        known = first.setdefault(shape(one, names=False), one)
        known[ALIKE] = known.get(ALIKE, 0) + 1
    for one in first.values():
        if one[ALIKE] == 1:
            del one[ALIKE]
    return list(first.values())


def pruned(node: Node) -> bool:
    """Whether partitions were left out because of a parameter, which is null when a plan is asked for."""
    return bool(node.get("Subplans Removed")) or any(pruned(below) for below in node.get("Plans", ()))


def kept_settings(settings: object) -> dict[str, str]:
    """The planner's settings that are not the server's own, but for those under which we asked."""
    if not isinstance(settings, dict):
        return {}
    return {str(name): str(value) for name, value in settings.items() if name not in _SETTINGS_OF_OURS}


def shape(node: Node, *, names: bool = True) -> str:
    """A hash, 16 characters, of nodes, relations, indexes and join order; costs and conditions do not matter, nor
    which partitions there are of those that are read alike. names: of relations and indexes, too.
    """
    digest = blake2b(digest_size=8)
    todo: list[tuple[Node, bool] | None] = [(node, names)]
    while todo:
        item = todo.pop()
        if item is None:
            digest.update(b"\2")
            continue
        one, named = item
        named = named and ALIKE not in one
        words = [str(one.get(name, "")) for name in _SHAPE if named or name not in _PARTITION]
        digest.update("\0".join(words).encode("utf-8", "replace") + b"\1")
        todo += [None, *((below, named) for below in reversed(one.get("Plans", ())))]
    return digest.hexdigest()


def summary(node: Node) -> str:
    """The plan in one line: `Limit > Nested Loop (Index Scan using orders_pkey on orders, Seq Scan on items)`."""
    line = _line(node)
    return line if len(line) <= MAX_SUMMARY else f"{line[: MAX_SUMMARY - 4]} ..."


def _line(node: Node) -> str:
    below = [_line(one) for one in node.get("Plans", ())]
    here = title(node, alias=False)
    if not below:
        return here
    return f"{here} > {below[0]}" if len(below) == 1 else f"{here} ({', '.join(below)})"


def title(node: Node, *, alias: bool = True) -> str:
    """What a node is called in the text form of a plan. alias: name that of a relation, too."""
    kind = str(node.get("Node Type", "?"))
    strategy, join = node.get("Strategy"), node.get("Join Type", "Inner")
    if kind == "Aggregate":
        partial = node.get("Partial Mode", "Simple")
        words = {"Sorted": "Group", "Hashed": "Hash", "Mixed": "Mixed"}.get(str(strategy), "")
        kind = f"{words}Aggregate" if partial == "Simple" else f"{partial} {words}Aggregate"
    elif kind == "SetOp":
        kind = f"{'Hash' if strategy == 'Hashed' else ''}SetOp {node.get('Command', '')}".rstrip()
    elif kind == "ModifyTable":
        kind = str(node.get("Operation", kind))
    elif kind in {"Nested Loop", "Merge Join", "Hash Join"} and join != "Inner":
        kind = f"{kind.removesuffix(' Join')} {join} Join"
    elif kind == "Foreign Scan" and node.get("Operation", "Select") != "Select":
        kind = f"Foreign {node['Operation']}"
    elif kind == "Custom Scan" and "Custom Plan Provider" in node:
        kind = f"Custom Scan ({node['Custom Plan Provider']})"
    prefix = "Parallel " if node.get("Parallel Aware") else "Async " if node.get("Async Capable") else ""
    return f"{prefix}{kind}{_target(node, alias=alias)}"


def _target(node: Node, *, alias: bool) -> str:
    index = node.get("Index Name")
    backward = " Backward" if node.get("Scan Direction") == "Backward" else ""
    if index is not None and node.get("Node Type") == "Bitmap Index Scan":
        return f" on {_quoted(index)}"
    using = f"{backward} using {_quoted(index)}" if index is not None else ""
    name = next((node[key] for key in _SCANNED if key in node), None)
    known = node.get("Alias")
    if name is None:
        return f"{using} on {_quoted(known)}" if known is not None and alias else using
    schema = f"{_quoted(node['Schema'])}." if "Schema" in node else ""
    other = f" {_quoted(known)}" if alias and known is not None and known != name else ""
    return f"{using} on {schema}{_quoted(name)}{other}"


_SCANNED = ("Relation Name", "Function Name", "Table Function Name", "CTE Name", "Tuplestore Name")
_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")


def _quoted(name: object) -> str:
    text = str(name)
    return text if _PLAIN.fullmatch(text) else '"' + text.replace('"', '""') + '"'


def _texts(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))


def _masked(value: object) -> Any:
    if isinstance(value, list):
        return [_masked(one) for one in value]
    if isinstance(value, dict):  # grouping sets
        return {name: _masked(one) for name, one in value.items() if name in _EXPRESSIONS}
    return masked(str(value))


def masked(text: str) -> str:
    """An expression with `?` for each of its literals; one that cannot be read is `?` as a whole."""
    parts: list[str] = []
    place = 0
    while True:
        token = token_at(text, place, operand=True)
        if token.kind is Kind.END:
            return "".join(parts)
        if token.kind in {Kind.CUT, Kind.BAD}:
            return "?"
        literal = token.kind is Kind.STRING or token.kind is Kind.NUMBER
        before = " " if token.start > place else ""
        if literal and _NUMBERED.search("".join(parts[-2:]) + before):
            literal = False  # (SubPlan 1)
        parts += (before, "?" if literal else text[token.start : token.end])
        place = token.end
