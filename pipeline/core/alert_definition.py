"""A rule as a user writes it, in Python or in the configuration.

Owns: the fields and their defaults, which are those of pipeline.alert_rule_set. Must not know how it is stored,
nor what is wrong with it: the database checks every rule that is written, wherever it comes from.
"""

from __future__ import annotations

from typing import Literal, TypedDict

import msgspec

MESSAGE = "{rule}: {instance} is {value}, the threshold is {threshold}"


class RuleFields(TypedDict, total=False):
    """The fields of a rule beside its name; docs/alerts.md tells what each means."""

    metric: str | None
    series: str | None
    sources: list[str] | None
    labels: dict[str, str]
    query: str | None
    over: str
    comparison: Literal[">", ">=", "<", "<="]
    threshold: float | None
    clear_threshold: float | None
    need: int
    keep_firing: int
    hold_max: int
    min_samples: int
    max_instances: int
    severity: Literal["info", "warning", "critical"]
    message: str
    runbook: str | None
    enabled: bool


class Definition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rule. over: as an interval is written: `1 minute`, `30 s`. metric: None where there is a query."""

    name: str
    metric: str | None = None
    series: str | None = None
    sources: list[str] | None = None
    labels: dict[str, str] = {}
    query: str | None = None
    over: str = "1 minute"
    comparison: str = ">"
    threshold: float | None = None
    clear_threshold: float | None = None
    need: int = 3
    keep_firing: int = 2
    hold_max: int = 3
    min_samples: int = 1
    max_instances: int = 500
    severity: str = "warning"
    message: str = MESSAGE
    runbook: str | None = None
    enabled: bool = True


class RuleHealth(msgspec.Struct, frozen=True):
    """How a rule fares. health: ok, error (problem says why), new (not judged yet) or off. judged_until: Unix
    seconds. took_ms: the last judgement. origin: user, file or builtin.
    """

    name: str
    origin: str
    metric: str
    severity: str
    health: str
    problem: str | None
    instances: int | None
    judged_until: float
    took_ms: float | None
