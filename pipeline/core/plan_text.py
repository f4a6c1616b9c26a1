"""A plan as text, in the form that EXPLAIN has.

Owns: the layout. Knows the names of fields and nothing of what they mean; what a node is called is in plan.py.
"""

from __future__ import annotations

from typing import Any

from pipeline.core.plan import ALIKE, Node, title

# said by the first line of a node, by the place of a node, or by nothing in the text form
_SAID = frozenset(
    {
        "Node Type", "Strategy", "Partial Mode", "Operation", "Parent Relationship", "Subplan Name", "Join Type",
        "Relation Name", "Schema", "Alias", "Index Name", "CTE Name", "Function Name", "Table Function Name",
        "Tuplestore Name", "Custom Plan Provider", "Scan Direction", "Command", "Parallel Aware", "Async Capable",
        "Inner Unique", "Startup Cost", "Total Cost", "Plan Rows", "Plan Width", "Plans", "Actual Rows",
        "Actual Loops", "Actual Startup Time", "Actual Total Time",
        "Sort Space Used", "Sort Space Type", "Original Hash Buckets", "Hash Batches", "Original Hash Batches",
        "Peak Memory Usage", "Exact Heap Blocks", "Lossy Heap Blocks", "Sampling Parameters",
        ALIKE, "Maximum Storage", "Disk Usage", "Cache Misses", "Cache Evictions", "Cache Overflows",
    }
)  # fmt: skip
_ONLY_IF_TRUE = frozenset({"Single Copy", "Disabled"})
# zero is not worth a line
_ONLY_IF_SOME = frozenset(
    {
        "Rows Removed by Filter", "Rows Removed by Index Recheck", "Rows Removed by Join Filter",
        "Rows Removed by Conflict Filter", "Subplans Removed", "Planned Partitions",
    }
)  # fmt: skip
_CACHE = ("Hits", "Misses", "Evictions", "Overflows")


def plan_text(node: Node, settings: dict[str, str] | None = None) -> str:
    """The plan as lines of text, without a line break at the end."""
    lines: list[str] = []
    _write(lines, node, 0)
    if settings:
        lines.append("Settings: " + ", ".join(f"{name} = '{value}'" for name, value in settings.items()))
    return "\n".join(lines)


def _write(lines: list[str], node: Node, indent: int) -> None:
    if "Subplan Name" in node:
        lines.append("  " * indent + str(node["Subplan Name"]))
        indent += 1
    head = f"{title(node)}  {_costs(node)}{_actual(node)}"
    lines.append(f"{'  ' * indent}->  {head}" if indent else head)
    indent += 3 if indent else 1
    if ALIKE in node:
        lines.append(f"{'  ' * indent}{ALIKE}: {node[ALIKE]}, of other partitions")
    for name, value in node.items():
        for line in _field(node, name, value):
            lines.append("  " * indent + line)
    for below in node.get("Plans", ()):
        _write(lines, below, indent)


def _costs(node: Node) -> str:
    first, last = node.get("Startup Cost", 0), node.get("Total Cost", 0)
    return f"(cost={first:.2f}..{last:.2f} rows={node.get('Plan Rows', 0)} width={node.get('Plan Width', 0)})"


def _actual(node: Node) -> str:
    loops = node.get("Actual Loops")
    if loops is None:
        return ""
    if not loops:
        return " (never executed)"
    times = ""
    if "Actual Total Time" in node:
        times = f"time={node.get('Actual Startup Time', 0):.3f}..{node['Actual Total Time']:.3f} "
    rows = node.get("Actual Rows", 0)
    return f" (actual {times}rows={rows:.2f} loops={loops})"


def _field(node: Node, name: str, value: Any) -> list[str]:
    if name == "Sort Method":
        kind = "Memory" if node.get("Sort Space Type") == "Memory" else "Disk"
        return [f"Sort Method: {value}  {kind}: {node.get('Sort Space Used', 0)}kB"]
    if name == "Hash Buckets":
        return [_hash(node)]
    if name == "HashAgg Batches":
        return [_hash_aggregate(node)]
    if name == "Storage":
        return [f"Storage: {value}  Maximum Storage: {node.get('Maximum Storage', 0)}kB"]
    if name == "Cache Hits":
        return [_memoize(node)]
    if name == "Planned Partitions" and "HashAgg Batches" in node:
        return []
    if name == "Sampling Method":
        return [f"Sampling: {value} ({', '.join(node.get('Sampling Parameters', ()))})"]
    if name == "Exact Heap Blocks":
        exact, lossy = node.get("Exact Heap Blocks", 0), node.get("Lossy Heap Blocks", 0)
        return [f"Heap Blocks:{f' exact={exact}' if exact else ''}{f' lossy={lossy}' if lossy else ''}"]
    if name == "Grouping Sets":
        return [_grouping(one) for one in value if isinstance(one, dict)]
    if name in _SAID or (name in _ONLY_IF_TRUE and not value) or (name in _ONLY_IF_SOME and not value):
        return []
    return [f"{name}: {_spoken(value)}"]


def _hash(node: Node) -> str:
    parts = [
        _was("Buckets", node, "Hash Buckets", "Original Hash Buckets"),
        _was("Batches", node, "Hash Batches", "Original Hash Batches"),
        f"Memory Usage: {node.get('Peak Memory Usage', 0)}kB",
    ]
    return "  ".join(parts)


def _hash_aggregate(node: Node) -> str:
    planned = node.get("Planned Partitions", 0)
    disk = node.get("Disk Usage", 0)
    return (
        f"{f'Planned Partitions: {planned}  ' if planned else ''}Batches: {node['HashAgg Batches']}"
        f"  Memory Usage: {node.get('Peak Memory Usage', 0)}kB{f'  Disk Usage: {disk}kB' if disk else ''}"
    )


def _memoize(node: Node) -> str:
    counts = "  ".join(f"{name}: {node.get(f'Cache {name}', 0)}" for name in _CACHE)
    return f"{counts}  Memory Usage: {node.get('Peak Memory Usage', 0)}kB"


def _was(label: str, node: Node, name: str, original: str) -> str:
    now, before = node.get(name, 0), node.get(original, node.get(name, 0))
    return f"{label}: {now}" if now == before else f"{label}: {now} (originally {before})"


def _grouping(sets: dict[str, Any]) -> str:
    lines: list[str] = []
    for name, value in sets.items():
        for keys in value if isinstance(value, list) else ():
            lines.append(f"{name.removesuffix('s')}: {_spoken(keys) if keys else '()'}")
    return "; ".join(lines)


def _spoken(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(str(one) for one in value) if isinstance(value, list) else str(value)
