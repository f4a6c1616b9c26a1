"""Rules on readings: what a rule says of one closed window, and what follows for its instances.

Owns: verdicts, which windows are due, the text of an alert. Must not know where readings come from, where
instances are kept, or how anything is told.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import msgspec

from pipeline.core.alert import NEVER, Change, Life, Policy, State, Step, Verdict, step
from pipeline.core.alert_metric import METRICS, Metric, Reading

MAX_CATCH_UP = 60  # windows judged after an outage; what is older counts neither for nor against

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_PLACEHOLDER = re.compile(r"\{([a-z]+|label\.[^{}]+)\}")


class Rule(msgspec.Struct, frozen=True):
    """A rule, as pipeline.alert_rule has it. seconds: the length of its windows. threshold: None, for a query
    of which each row is bad.

    revision: changes when the rule measures something else, so that old instances no longer speak for it.
    """

    id: int
    name: str
    metric: str
    seconds: int
    min_samples: int
    severity: str
    message: str
    revision: str
    series: str | None = None
    sources: tuple[str, ...] | None = None
    labels: dict[str, str] = {}
    query: str | None = None
    comparison: str = ">"
    threshold: float | None = None
    clear_threshold: float | None = None
    max_instances: int = 500
    runbook: str | None = None
    policy: Policy = Policy()

    @property
    def kind(self) -> Metric:
        return METRICS[self.metric]

    def limit(self, *, firing: bool) -> float | None:
        """What a value is compared with; while it fires, that is the clear threshold."""
        return self.clear_threshold if firing and self.clear_threshold is not None else self.threshold


class Alert(msgspec.Struct, frozen=True):
    """One instance with all that is known of it. kind: `metric`, a rule judged it, or `raised`, by SQL."""

    kind: str
    rule: str
    instance: str
    life: Life
    severity: str
    message: str
    revision: str = ""
    value: float | None = None
    threshold: float | None = None
    labels: dict[str, str] = {}


class Judged(msgspec.Struct, frozen=True):
    """What one verdict made of one instance. change: what has to be told. reason: why, for the history."""

    alert: Alert
    before: State
    change: Change | None
    at: float
    reason: str = ""
    runbook: str | None = None


class Look(msgspec.Struct, frozen=True):
    """All readings of a rule for one window.

    partial: there are more than these, so nothing is known of an instance that is not among them. late: other
    windows have closed since; what is silent in it may have had nobody to record it, which counts neither for nor
    against.
    """

    start: int
    readings: Sequence[Reading]
    partial: bool = False
    late: bool = False


Alerts: TypeAlias = Mapping[str, Alert]


def due_windows(judged_until: float, now: float, *, seconds: int, grace: float, keep: float) -> list[int]:
    """The starts of the windows that have closed and were not judged, the oldest first.

    grace: how long after its end a window counts as closed; late timings need it. keep: how far back
    measurements are there; windows before that, and all but the last MAX_CATCH_UP, are passed over.
    """
    first = math.ceil(judged_until / seconds) * seconds
    last = math.floor((now - grace) / seconds) * seconds - seconds
    first = max(first, last - (MAX_CATCH_UP - 1) * seconds, math.ceil((now - keep) / seconds) * seconds)
    return list(range(first, last + seconds, seconds))


def clash(readings: Sequence[Reading]) -> str | None:
    """The instance that two readings name, or None."""
    seen: set[str] = set()
    for one in readings:
        if one.instance in seen:
            return one.instance
        seen.add(one.instance)
    return None


def judge_window(rule: Rule, alerts: Alerts, look: Look) -> tuple[list[Judged], str]:
    """Judge every instance of a rule on one window; no two readings are of one instance.

    alerts: the rule's instances by name. Returns what became of each that is or was not inactive, and the rule's
    problem or "".
    """
    at = look.start + rule.seconds
    now = Step(float(at), at, rule.policy)
    judged = []
    alive = sum(alert.life.state is not State.RESOLVED for alert in alerts.values())
    refused = 0
    broken: str | None = None
    seen = set()
    for reading in look.readings:
        seen.add(reading.instance)
        alert = alerts.get(reading.instance)
        life = alert.life if alert else NEVER
        verdict, reason = _verdict(rule, reading, life, look)
        if life.state in (State.INACTIVE, State.RESOLVED):
            if verdict is not Verdict.BAD:
                continue  # nothing becomes of it
            if alive >= rule.max_instances:
                refused += 1
                continue
            alive += 1
        message, wrong = _message(rule, alert, verdict, reading)
        broken = broken or wrong
        judged.append(_judge(rule, alert, reading, verdict, now, message, reason))
    for name in sorted(alerts.keys() - seen):
        alert = alerts[name]
        if alert.life.state is not State.RESOLVED:
            verdict, reason = _absent(rule, look)
            reading = Reading(name, alert.value, alert.labels)
            judged.append(_judge(rule, alert, reading, verdict, now, alert.message, reason))
    problem = ""
    if refused or look.partial:
        count = f"more than {len(look.readings)}" if look.partial else str(alive + refused)
        problem = (
            f"too many instances: {count} are bad; only {rule.max_instances} at a time can be pending or firing"
        )
    return judged, problem or (f"its message cannot be filled in: {broken}" if broken else "")


def _verdict(rule: Rule, reading: Reading, life: Life, look: Look) -> tuple[Verdict, str]:
    value, limit = reading.value, rule.limit(firing=life.state is State.FIRING)
    if limit is None:
        return Verdict.BAD, "the query returned it"
    if value is None or math.isnan(value) or reading.samples < rule.min_samples:
        return (Verdict.ERROR if look.late else Verdict.NODATA), "no data"
    bad = _COMPARE[rule.comparison](value, limit)
    return (Verdict.BAD if bad else Verdict.GOOD), (
        f"{rule.metric} {value:g} {'' if bad else 'not '}{rule.comparison} {limit:g}"
    )


def _absent(rule: Rule, look: Look) -> tuple[Verdict, str]:
    if look.partial or look.late:
        return Verdict.ERROR, "nothing is known of it"
    if rule.kind.gone_is_good:
        return Verdict.GOOD, "it is gone"
    return Verdict.NODATA, "no data"


def _judge(
    rule: Rule, alert: Alert | None, reading: Reading, verdict: Verdict, now: Step, message: str, reason: str
) -> Judged:
    life = alert.life if alert else NEVER
    after, change = step(life, verdict, now)
    told = Alert(
        "metric",
        rule.name,
        reading.instance,
        after,
        rule.severity,
        message,
        rule.revision,
        reading.value if reading.value is not None or alert is None else alert.value,
        rule.threshold,
        reading.labels,
    )
    return Judged(told, life.state, change, now.at, reason, rule.runbook)


def _message(rule: Rule, alert: Alert | None, verdict: Verdict, reading: Reading) -> tuple[str, str | None]:
    # a message that names a breach stays true while the alert waits for enough good windows to be resolved
    if alert is not None and verdict is not Verdict.BAD:
        return alert.message, None
    return render(rule, reading)


def outdated(rule: Rule, alerts: Alerts, at: float) -> list[Judged]:
    """Resolve the instances that an earlier wording of the rule made; they do not speak for this one."""
    ended = [end(alert, at, "rule_changed") for alert in alerts.values() if alert.revision != rule.revision]
    return [
        msgspec.structs.replace(one, alert=msgspec.structs.replace(one.alert, revision=rule.revision))
        for one in ended
    ]


def end(alert: Alert, at: float, reason: str) -> Judged:
    """Resolve an instance whose rule no longer speaks for it."""
    life, change = step(alert.life, Verdict.RESOLVE, Step(at, alert.life.episode))
    return Judged(msgspec.structs.replace(alert, life=life), alert.life.state, change, at, reason)


def signal(alert: Alert, *, raised: bool, at: float, episode: int) -> Judged:
    """Take in what SQL said by raise_alert or resolve_alert. episode: the number of the message."""
    verdict = Verdict.RAISE if raised else Verdict.RESOLVE
    life, change = step(alert.life, verdict, Step(at, episode))
    reason = "raised" if raised else "resolved"
    return Judged(msgspec.structs.replace(alert, life=life), alert.life.state, change, at, reason)


def render(rule: Rule, reading: Reading) -> tuple[str, str | None]:
    """The rule's message with its placeholders filled in, and what could not be; nothing is interpreted otherwise.

    What cannot be filled in stands in the text, because an alert is worth more than its words.
    """
    filled = {
        "rule": rule.name,
        "metric": rule.metric,
        "series": reading.instance,
        "instance": reading.instance or "it",
        "value": _number(reading.value),
        "threshold": _number(rule.threshold),
        "detail": reading.detail,
    }
    missing: list[str] = []

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        text = reading.labels.get(name[6:]) if name.startswith("label.") else filled.get(name, match[0])
        if text is None:
            missing.append(f"there is no label {name[6:]}")
            return f"<error expanding template: no label {name[6:]}>"
        return text

    text = _PLACEHOLDER.sub(fill, rule.message)
    return text, missing[0] if missing else None


def _number(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
