"""Rules on measurements: what a rule says of one closed window, and what follows for its instances.

Owns: verdicts, which windows are due, the text of an alert. Must not know where measurements come from, where
instances are kept, or how anything is told.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import msgspec

from pipeline.core.alert import NEVER, Change, Life, Policy, State, Step, Verdict, step

MAX_INSTANCES = 500  # of one rule; a pattern that matches more is a mistake, and the rule says so
MAX_CATCH_UP = 60  # windows judged after an outage; what is older counts neither for nor against

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


class Rule(msgspec.Struct, frozen=True):
    """A metric rule, as pipeline.alert_rule has it. seconds: the length of its windows.

    revision: changes when the rule measures something else, so that old instances no longer speak for it.
    """

    id: int
    name: str
    metric: str
    series: str
    seconds: int
    comparison: str
    threshold: float
    min_samples: int
    severity: str
    message: str
    revision: str
    policy: Policy = Policy()


class Measure(msgspec.Struct, frozen=True):
    """One series in one window; durations in milliseconds."""

    series: str
    count: int
    errors: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: float

    def value(self, metric: str) -> float:
        """The figure that `latency.<name>` names."""
        name = metric.removeprefix("latency.")
        if name == "error_rate":
            return self.errors / self.count
        return float(getattr(self, name))


class Alert(msgspec.Struct, frozen=True):
    """One instance with all that is known of it. kind: `metric` or `raised`."""

    kind: str
    rule: str
    instance: str
    life: Life
    severity: str
    message: str
    revision: str = ""
    value: float | None = None
    threshold: float | None = None


class Judged(msgspec.Struct, frozen=True):
    """What one verdict made of one instance. change: what has to be told. reason: why, for the history."""

    alert: Alert
    before: State
    change: Change | None
    at: float
    reason: str = ""


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


def judge_window(rule: Rule, alerts: Alerts, measures: Sequence[Measure], start: int) -> tuple[list[Judged], str]:
    """Judge every instance of a rule on the window that begins at `start`.

    alerts: the rule's instances by name. Returns what became of each, and the rule's problem or "".
    """
    at = start + rule.seconds
    now = Step(float(at), at, rule.policy)
    found = {measure.series: measure for measure in measures}
    judged = []
    new = 0
    for series in sorted({*alerts, *found}):
        if series not in alerts:
            new += 1
            if len(alerts) + new > MAX_INSTANCES:
                continue
        judged.append(_judge(rule, alerts.get(series), series, found.get(series), now))
    problem = ""
    if len(alerts) + new > MAX_INSTANCES:
        problem = f"{len(alerts) + new} series match {rule.series}; only {MAX_INSTANCES} are judged"
    return judged, problem


def _judge(rule: Rule, alert: Alert | None, series: str, measure: Measure | None, now: Step) -> Judged:
    life = alert.life if alert else NEVER
    value = alert.value if alert else None
    verdict, reason = Verdict.NODATA, "no data"
    if measure is not None and measure.count >= max(rule.min_samples, 1):
        value = measure.value(rule.metric)
        bad = _COMPARE[rule.comparison](value, rule.threshold)
        verdict = Verdict.BAD if bad else Verdict.GOOD
        reason = f"{rule.metric} {value:g} {'' if bad else 'not '}{rule.comparison} {rule.threshold:g}"
    after, change = step(life, verdict, now)
    if alert is not None and after == life and life.state is State.RESOLVED:
        return Judged(alert, life.state, None, now.at)  # it says what it said when it ended
    # a message that names a breach stays true while the alert waits for enough good windows to be resolved
    message = alert.message if alert is not None and verdict is not Verdict.BAD else render(rule, series, value)
    told = Alert(
        "metric",
        rule.name,
        series,
        after,
        rule.severity,
        message,
        rule.revision,
        value,
        rule.threshold,
    )
    return Judged(told, life.state, change, now.at, reason)


def outdated(rule: Rule, alerts: Alerts, at: float) -> list[Judged]:
    """Resolve the instances that an earlier wording of the rule made; they do not speak for this one."""
    ended = [end(alert, at, "rule changed") for alert in alerts.values() if alert.revision != rule.revision]
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


def render(rule: Rule, series: str, value: float | None) -> str:
    """The rule's message with its placeholders filled in; nothing in it is interpreted otherwise."""
    filled = {
        "{rule}": rule.name,
        "{metric}": rule.metric,
        "{series}": series,
        "{value}": "unknown" if value is None else f"{value:.4g}",
        "{threshold}": f"{rule.threshold:g}",
    }
    text = rule.message
    parts = []
    while text:
        place, name = min(((text.find(name), name) for name in filled if name in text), default=(len(text), ""))
        parts += [text[:place], filled.get(name, "")]
        text = text[place + len(name) :]
    return "".join(parts)
