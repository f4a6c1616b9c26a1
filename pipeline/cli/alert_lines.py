"""How alerts are laid out: tables in 80 columns, values with their units, what happened when.

Owns: the picture as plain lines. Knows no database, no colour and no stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from pipeline.cli.timing_lines import cut, duration, percent, shown
from pipeline.cli.words import counted, facts, moment, optional
from pipeline.core.alert_untold import Telling, why_untold
from pipeline.core.span import show_span
from pipeline.db.alert_shapes import AlertRow, ChangeRow, ChannelRow, NoteRow, NotificationRow, RuleRow, SilenceRow

INDENT = "  "


def columns(heads: Sequence[str], rows: Sequence[tuple[Sequence[str], Sequence[str]]], width: int) -> list[str]:
    """Aligned texts, the last cut where the line would be too long. A row is its cells and lines that go below."""
    sizes = [max([len(head), *(len(cells[at]) for cells, _ in rows)]) for at, head in enumerate(heads)]
    out = []
    for cells, below in [(heads, ()), *rows]:
        line = INDENT.join(cell.ljust(size) for cell, size in zip(cells, sizes, strict=True)).rstrip()
        out.append(cut(line, width))
        out += [cut(INDENT + text, width) for text in below]
    return out


def alerts(found: Sequence[AlertRow], width: int) -> list[str]:
    """`pgreflex alerts list`."""
    rows = [
        ((one.state, one.severity, show_span(one.seconds), measured(one), shown(one.rule)), _below(one))
        for one in found
    ]
    return columns(("state", "severity", "for", "value", "alert"), rows, width)


def _below(one: AlertRow) -> list[str]:
    lines = [shown(" ".join(one.message.split()))] if one.message else []
    if one.instance and one.instance not in one.message:
        lines.insert(0, shown(one.instance))
    return lines + marks(one)


def marks(one: AlertRow) -> list[str]:
    """What has to be known of it beside its state."""
    told = ["no data at present"] if one.nodata else []
    if one.acknowledged is not None:
        note = f": {one.acknowledged.note}" if one.acknowledged.note else ""
        told.append(shown(f"acknowledged by {one.acknowledged.by}{note}"))
    if one.held:
        told.append(shown(f"not told: {one.held}"))
    return told


def measured(one: AlertRow) -> str:
    """`412 ms > 300 ms`; `-` for what SQL raised."""
    if one.value is None:
        return "-"
    limit = "" if one.threshold is None else f" {_sign(one)} {quantity(one.threshold, one.unit)}"
    return quantity(one.value, one.unit) + limit


def _sign(one: AlertRow) -> str:
    """The comparison, or its contrary where the value is good again."""
    if one.threshold is None or one.value is None or one.comparison is None:
        return "/"
    above = one.comparison in (">", ">=")
    equal = one.value == one.threshold
    holds = (equal and "=" in one.comparison) or (not equal and (one.value > one.threshold) == above)
    return one.comparison if holds else {">": "<=", ">=": "<", "<": ">=", "<=": ">"}[one.comparison]


def quantity(value: float | None, unit: str | None) -> str:
    """A value in the unit of its metric."""
    if value is None:
        return "-"
    if unit == "ms":
        return duration(value)
    if unit == "s" and value >= 0:
        return show_span(value)
    if unit == "0 to 1":
        return percent(value)
    if unit in ("bytes", "bytes per minute"):
        return _size(value) + unit.removeprefix("bytes")
    text = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return f"{text} {unit}" if unit and unit != "0 or 1" else text


def _size(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


def life(one: AlertRow, width: int) -> list[str]:
    """Everything about where one instance stands."""
    told = [
        ("instance", shown(one.instance) or "the only one"),
        ("state", f"{one.state} for {show_span(one.seconds)}{_streak(one)}"),
        ("value", measured(one)),
    ]
    if one.active_at is not None and one.active_at != one.fired_at:
        told.append(("pending since", moment(one.active_at)))
    if one.fired_at is not None:
        told.append(("firing since", moment(one.fired_at)))
    if one.resolved_at is not None:
        told.append(("resolved at", moment(one.resolved_at)))
    out = facts(told)
    out += [line for text in [one.message, *marks(one)] for line in wrap(shown(text), width)]
    return out


def _streak(one: AlertRow) -> str:
    if one.kind == "raised" or one.need is None or one.keep_firing is None:
        return ""
    if one.state == "pending":
        return f", {one.bad} of {counted(one.need, 'bad window')}" + _silence(one)
    if one.state == "firing" and one.good:
        return f", {one.good} of {counted(one.keep_firing, 'good window')}" + _silence(one)
    return _silence(one)


def _silence(one: AlertRow) -> str:
    return f", {counted(one.silent, 'window')} without data" if one.silent else ""


def told(one: AlertRow, found: Sequence[Telling], width: int) -> list[str]:
    """How an alert stands with each channel, and why one was not told."""
    rows: list[tuple[Sequence[str], Sequence[str]]] = []
    for telling in found:
        why = why_untold(telling, state=one.state, acknowledged=one.acknowledged is not None, held=one.held)
        rows.append(((shown(telling.channel), moment(telling.told_at), shown(why)), []))
    return columns(("channel", "told (UTC)", "why not" if any(cells[2] for cells, _ in rows) else ""), rows, width)


def notifications(found: Sequence[NotificationRow], width: int) -> list[str]:
    """What was sent, the newest first."""
    rows = [
        (
            (moment(one.at), shown(one.channel), one.state, one.reason, str(one.alerts), str(one.attempts)),
            [shown(one.problem)] if one.problem else [],
        )
        for one in found
    ]
    return columns(("made (UTC)", "channel", "state", "reason", "alerts", "attempts"), rows, width)


def silences(found: Sequence[SilenceRow], width: int) -> list[str]:
    """`pgreflex alerts silences`."""
    rows = []
    for one in found:
        left = show_span(one.left_seconds) if one.active else "over"
        meant = " ".join(f"{name}={text}" for name, text in one.matchers.items()) or "everything"
        rows.append(
            ((str(one.id), left, moment(one.ends_at), shown(one.made_by), shown(meant)), [shown(one.reason)])
        )
    return columns(("id", "left", "until (UTC)", "by", "what"), rows, width)


def channels(found: Sequence[ChannelRow], width: int) -> list[str]:
    """`pgreflex alerts channels`."""
    rows = [
        (
            (shown(one.channel), one.kind, str(one.waiting), str(one.failed), moment(one.told_at)),
            [shown(one.problem)] if one.problem else [],
        )
        for one in found
    ]
    return columns(("channel", "type", "waiting", "failed 24h", "accepted (UTC)"), rows, width)


def history(
    found: Sequence[ChangeRow], notes: Sequence[NoteRow], width: int, *, of_one: bool = False
) -> list[str]:
    """What happened, and what people did, the newest first. of_one: of one alert, whose name is left out."""
    rows = [(one.at, _change(one, of_one=of_one)) for one in found]
    rows += [(one.at, _note(one, of_one=of_one)) for one in notes]
    rows.sort(key=lambda row: row[0], reverse=True)
    return columns(("at (UTC)", "what", "instance" if of_one else "alert"), [row for _, row in rows], width)


def _change(one: ChangeRow, *, of_one: bool) -> tuple[Sequence[str], Sequence[str]]:
    below = " ".join(part for part in (one.message, f"({one.reason})" if one.reason else "") if part)
    cells = (moment(one.at), f"{one.before} -> {one.after}", _name(one.rule, one.instance, of_one=of_one))
    return cells, [shown(" ".join(below.split()))] if below else []


def _note(one: NoteRow, *, of_one: bool) -> tuple[Sequence[str], Sequence[str]]:
    cells = (
        moment(one.at),
        f"{one.action} by {shown(one.by)}",
        _name(one.rule, one.instance or "", of_one=of_one),
    )
    return cells, [shown(" ".join(one.note.split()))] if one.note else []


def _name(rule: str, instance: str, *, of_one: bool) -> str:
    return shown(instance if of_one else f"{rule} {instance}".rstrip())


def rules(found: Sequence[RuleRow], width: int) -> list[str]:
    """`pgreflex alerts rules list`."""
    rows = []
    for one in found:
        alive = f"{one.firing} firing" if one.firing else f"{one.pending} pending" if one.pending else "-"
        judged = "-" if one.judged_at is None else moment(one.judged_at)
        problem = [shown(" ".join(one.problem.split()))] if one.problem and one.health == "error" else []
        rows.append(((one.health, one.severity, alive, judged, shown(one.name)), problem))
    return columns(("health", "severity", "alerts", "judged (UTC)", "rule"), rows, width)


def rule(one: RuleRow, width: int) -> list[str]:
    """Everything about a rule."""
    problem = f": {one.problem}" if one.problem else ""
    told = [
        ("rule", f"{shown(one.name)}  ({one.severity}, {ORIGINS.get(one.origin, one.origin)})"),
        ("health", one.health + problem),
        ("metric", condition(one)),
        ("windows", f"{show_span(one.over_seconds)}; fires after {counted(one.need, 'bad one')},"
         f" resolved after {counted(one.keep_firing, 'good one')}"),
    ]  # fmt: skip
    if one.series is not None:
        told.append(("series", shown(one.series) + (f"  of {', '.join(one.sources)}" if one.sources else "")))
    if one.labels:
        told.append(("labels", ", ".join(f"{name}={value}" for name, value in one.labels.items())))
    if one.query is not None:
        told.append(("query", shown(" ".join(one.query.split()))))
    told += [
        ("judged", _judged(one)),
        ("runbook", optional(one.runbook)),
    ]
    label = max(len(name) for name, _ in told) + 2
    return [
        line
        for row in facts(told)
        for line in wrap(row, width, subsequent_indent=" " * label, break_on_hyphens=False) or [row]
    ]


def _judged(one: RuleRow) -> str:
    if one.judged_at is None:
        return "not yet"
    seen = "" if one.instances is None else f", {counted(one.instances, 'instance')} seen"
    return f"{moment(one.judged_at)}, in {duration(one.took_ms)}{seen}"


ORIGINS = {"user": "yours", "file": "of the configuration", "builtin": "built in"}


def condition(one: RuleRow) -> str:
    """`latency.p95 > 500 ms, clears at 400 ms`."""
    if one.threshold is None:
        return f"{one.metric}: each row that its query returns"
    clear = "" if one.clear_threshold is None else f", clears at {quantity(one.clear_threshold, one.unit)}"
    return f"{one.metric} {one.comparison} {quantity(one.threshold, one.unit)}{clear}"
