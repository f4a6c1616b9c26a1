"""How much memory a full cache takes, beside its bound.

Owns: one process for each kind of value (bench/cache_filler.py), and the comparison.
"""

from __future__ import annotations

from bench.jobs_child import child, module
from bench.jobs_kit import Bench, amount

OVER = "memory of a full cache/its bound, most"
UNDER = "memory of a full cache/its bound, least"
GOALS = {OVER: ("<=", 1.05), UNDER: (">=", 0.95)}
KINDS = ("numbers", "rows", "row", "text", "nested", "dataclasses", "structs", "decimals", "tags")
FILL_SECONDS = 120.0


async def measure(bench: Bench) -> None:
    report = bench.report
    bound = amount(64, 8) * 2**20
    shares: dict[str, float] = {}
    for kind in KINDS:
        async with child(kind, module("cache_filler", kind, str(bound))) as filler:
            told = await filler.hear("filled", FILL_SECONDS)
        shares[kind] = told["traced"] / bound
        report.figure(f"{kind}: memory/bound", shares[kind])
        resident = told["resident"] / bound
        report.say(
            f"         {told['entries']:,} entries, counted {told['bytes'] / bound:.3f}, resident {resident:.3f}"
        )
    most, least = max(shares, key=shares.__getitem__), min(shares, key=shares.__getitem__)
    report.goal(OVER, shares[most], *GOALS[OVER], most)
    report.goal(UNDER, shares[least], *GOALS[UNDER], least)
