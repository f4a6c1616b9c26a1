"""Matchers: which alerts a silence, a route, an inhibition or a maintenance window means.

Owns: their forms and what they match. Must not know who uses them.

A matcher names an attribute, `rule`, `severity`, `kind`, `instance` or `label.NAME`, and the text that it must
have. In the text * stands for any number of characters, and a leading ! turns the sense around; an attribute
that an alert does not have is the empty text. All matchers of a set must hold, and the empty set matches
everything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from pipeline.core.alert_rule import Alert

ATTRIBUTES = ("rule", "severity", "kind", "instance")
LABEL = "label."


def problem_of(matchers: Mapping[str, object]) -> str | None:
    """What is wrong with these matchers, or None. SQL's check_matchers says the same."""
    for name, text in matchers.items():
        if name not in ATTRIBUTES and not (name.startswith(LABEL) and len(name) > len(LABEL)):
            return f"there is no attribute {name}; there are {', '.join(ATTRIBUTES)} and label.NAME"
        if not isinstance(text, str):
            return f"{name} should be a text, such as eu, eu* or !eu"
    return None


def matches(matchers: Mapping[str, str], alert: Alert) -> bool:
    """Whether all of them hold."""
    return all(_holds(text, attribute(alert, name)) for name, text in matchers.items())


def attribute(alert: Alert, name: str) -> str:
    """One attribute of an alert; the empty text when it has none of this name."""
    if name.startswith(LABEL):
        return alert.labels.get(name.removeprefix(LABEL), "")
    return str(getattr(alert, name))


def _holds(text: str, value: str) -> bool:
    if text.startswith("!"):
        return not _pattern(text[1:]).fullmatch(value)
    return _pattern(text).fullmatch(value) is not None


@lru_cache(maxsize=1_000)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)
