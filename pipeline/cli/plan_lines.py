"""How the plans of a query are laid out.

Owns: the picture as plain lines. Knows no database and no stream.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.cli.timing_lines import cut, duration, number, shown
from pipeline.cli.words import counted, moment
from pipeline.db.plans import PlanChange, StoredPlan


def plans(found: Sequence[StoredPlan], changes: Sequence[PlanChange], width: int) -> list[str]:
    """The present plan, and what came before it; nothing where no plan is known."""
    if not found:
        return []
    now = found[0]
    seen = f"seen {counted(now.times, 'time')} from {moment(now.first_at)} to {moment(now.last_at)}"
    out = ["", f"{now.kind} plan, {seen}", *(cut(shown(f"  {line}"), width) for line in now.text.splitlines())]
    if changes:
        out += ["", "changes of its plan"]
    for change in changes:
        before = _latency(change.calls_before, change.p50_ms_before, change.p95_ms_before)
        after = _latency(change.calls_after, change.p50_ms_after, change.p95_ms_after)
        out.append(f"  {moment(change.at)}  {before} -> {after}")
        out += [cut(shown(f"    {sign} {plan}"), width) for sign, plan in _signed(change)]
    return out


def _signed(change: PlanChange) -> list[tuple[str, str]]:
    return [("-", change.plan_before), ("+", change.plan_after)]


def _latency(calls: int, p50: float | None, p95: float | None) -> str:
    if not calls:
        return "no calls"
    return f"{number(calls)} calls, p50 {duration(p50)}, p95 {duration(p95)}"
