"""What holds telling back: silences, maintenance windows and inhibitions.

Owns: whether an alert is held back now, and by what. Must not know where these are kept or who is told. What is
held back fires all the same, and is seen.

An inhibition holds back the alerts that match `target` while one fires that matches `source`, if both have the
same text in every label of `equal`. An alert that matches both sides is held back by no alert that does so too,
or two of a kind would silence each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import msgspec

from pipeline.core import cron
from pipeline.core.alert_match import attribute, matches
from pipeline.core.alert_rule import Alert
from pipeline.errors import PgreflexError


class Silence(msgspec.Struct, frozen=True):
    """Whatever matches is not told; only silences that hold now are handed over."""

    id: int
    matchers: dict[str, str]


class Maintenance(msgspec.Struct, frozen=True):
    """As a silence, for `seconds` from each moment of `cron` in `zone`."""

    name: str
    matchers: dict[str, str]
    cron: str
    seconds: float
    zone: str = "UTC"


class Inhibition(msgspec.Struct, frozen=True):
    """See above. equal: attributes as matchers name them."""

    name: str
    source: dict[str, str]
    target: dict[str, str]
    equal: tuple[str, ...] = ()


class Holds:
    """All of these at one moment. firing: what fires, as far as it may be the source of an inhibition."""

    def __init__(
        self,
        silences: Sequence[Silence],
        windows: Sequence[Maintenance],
        inhibitions: Sequence[Inhibition],
        firing: Sequence[Alert],
        now: float,
    ) -> None:
        self._silences = silences
        self._windows = [window for window in windows if is_open(window, now)]
        self._sources = [(one, _sources(one, firing)) for one in inhibitions]

    def why(self, alert: Alert) -> str:
        """What holds the alert back, for people to read; "" when it may be told."""
        for silence in self._silences:
            if matches(silence.matchers, alert):
                return f"silence {silence.id}"
        for window in self._windows:
            if matches(window.matchers, alert):
                return f"maintenance {window.name}"
        for one, sources in self._sources:
            if sources and matches(one.target, alert) and self._inhibited(one, sources, alert):
                return f"inhibition {one.name}"
        return ""

    def _inhibited(self, one: Inhibition, sources: set[tuple[tuple[str, ...], bool]], alert: Alert) -> bool:
        equals = _equals(one, alert)
        if matches(one.source, alert):
            return (equals, False) in sources
        return (equals, False) in sources or (equals, True) in sources


def is_open(window: Maintenance, now: float) -> bool:
    """Whether a maintenance window is open; one whose cron cannot be read is not."""
    try:
        moments = cron.parse(window.cron, window.zone)
    except PgreflexError:
        return False
    began = list(islice(moments.after(now - window.seconds), 1))
    return bool(began) and began[0] <= now


def _sources(one: Inhibition, firing: Sequence[Alert]) -> set[tuple[tuple[str, ...], bool]]:
    """Of each source the texts of its equal labels, and whether it matches both sides."""
    return {(_equals(one, alert), matches(one.target, alert)) for alert in firing if matches(one.source, alert)}


def _equals(one: Inhibition, alert: Alert) -> tuple[str, ...]:
    return tuple(attribute(alert, name) for name in one.equal)
