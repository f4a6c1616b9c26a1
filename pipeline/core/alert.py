"""The life of an alert: one transition table.

Owns: the states, the verdicts and every transition. Must not know rules, measurements, storage or delivery.

Theory of operation
-------------------
An instance is one rule applied to one series (or one raised alert with one set of labels). A step takes one
verdict on one CLOSED window, and each window is judged once; so streaks are counts of windows, not stretches
of wall time, and a restart or an outage between two windows counts neither for nor against.

    state     bad                     good                     nodata              error  raise    resolve
    inactive  pending, streak 1 (*)   -                        -                   -      firing   -
    pending   streak + 1 (*)          inactive, silently       hold; inactive      -      firing   inactive
                                                               after hold_max
    firing    good streak 0           good streak + 1;         hold; flagged       -      -        resolved
                                      resolved at keep_firing  after hold_max
    resolved  new episode, as from    -                        -                   -      firing   -
              inactive (*)

(*) `need` bad windows in succession make it firing; with need = 1 the first does.

No data is not good news: it never resolves a firing alert, it only flags it. It is no bad news either: it
holds a streak, and ends it only after hold_max windows. A query that failed changes nothing at all. `raise`
and `resolve` are what SQL itself says (`pipeline.raise_alert`), or what the removal of a rule means; they are
believed at once. What changed is told (firing, resolved) exactly when the table says so: a pending alert that
calms down was never news.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Literal, TypeAlias

import msgspec


class State(StrEnum):
    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Verdict(StrEnum):
    BAD = "bad"
    GOOD = "good"
    NODATA = "nodata"
    ERROR = "error"
    RAISE = "raise"
    RESOLVE = "resolve"


Change: TypeAlias = Literal["firing", "resolved"]


class Policy(msgspec.Struct, frozen=True):
    """Counts of windows. need: bad ones until it fires. keep_firing: good ones until it is resolved.

    hold_max: how many without data a streak survives, and after how many a firing alert says so.
    """

    need: int = 3
    keep_firing: int = 2
    hold_max: int = 3


class Life(msgspec.Struct, frozen=True):
    """Where one instance stands. Times are Unix seconds.

    bad, good, silent: how many such windows in succession, as far as the state counts them.
    episode: names this occurrence among all of the instance; no window comes twice, so the end of the first
    bad one will do. nodata: firing, and silent for hold_max windows.
    """

    state: State = State.INACTIVE
    bad: int = 0
    good: int = 0
    silent: int = 0
    episode: int = 0
    active_at: float | None = None
    fired_at: float | None = None
    resolved_at: float | None = None
    nodata: bool = False


class Step(msgspec.Struct, frozen=True):
    """What a verdict comes with. at: the window's end, Unix seconds. episode: names a new occurrence."""

    at: float
    episode: int
    policy: Policy = Policy()


NEVER = Life()
_Transition: TypeAlias = Callable[[Life, Step], Life]


def step(life: Life, verdict: Verdict, now: Step) -> tuple[Life, Change | None]:
    """The life after one verdict, and what has to be told of it."""
    after = TABLE[life.state, verdict](life, now)
    if after.state == life.state:
        return after, None
    if after.state is State.FIRING:
        return after, "firing"
    if after.state is State.RESOLVED:
        return after, "resolved"
    return after, None


def _stay(life: Life, _now: Step) -> Life:
    return life


def _calm(_life: Life, _now: Step) -> Life:
    return NEVER


def _begin(_life: Life, now: Step) -> Life:
    fresh = Life(State.PENDING, bad=1, episode=now.episode, active_at=now.at)
    return _fire(fresh, now) if now.policy.need <= 1 else fresh


def _worsen(life: Life, now: Step) -> Life:
    worse = msgspec.structs.replace(life, bad=life.bad + 1, silent=0)
    return _fire(worse, now) if worse.bad >= now.policy.need else worse


def _fire(life: Life, now: Step) -> Life:
    return msgspec.structs.replace(life, state=State.FIRING, silent=0, fired_at=now.at)


def _raise(life: Life, now: Step) -> Life:
    if life.state is State.PENDING:
        return _fire(life, now)
    return Life(State.FIRING, bad=1, episode=now.episode, active_at=now.at, fired_at=now.at)


def _hold(life: Life, now: Step) -> Life:
    silent = life.silent + 1
    if life.state is State.PENDING:
        return NEVER if silent >= now.policy.hold_max else msgspec.structs.replace(life, silent=silent)
    return msgspec.structs.replace(life, silent=silent, nodata=silent >= now.policy.hold_max)


def _relapse(life: Life, _now: Step) -> Life:
    return msgspec.structs.replace(life, good=0, silent=0, nodata=False)


def _improve(life: Life, now: Step) -> Life:
    better = msgspec.structs.replace(life, good=life.good + 1, silent=0, nodata=False)
    return _end(better, now) if better.good >= now.policy.keep_firing else better


def _end(life: Life, now: Step) -> Life:
    return msgspec.structs.replace(life, state=State.RESOLVED, nodata=False, resolved_at=now.at)


TABLE: dict[tuple[State, Verdict], _Transition] = {
    (State.INACTIVE, Verdict.BAD): _begin,
    (State.INACTIVE, Verdict.GOOD): _stay,
    (State.INACTIVE, Verdict.NODATA): _stay,
    (State.INACTIVE, Verdict.ERROR): _stay,
    (State.INACTIVE, Verdict.RAISE): _raise,
    (State.INACTIVE, Verdict.RESOLVE): _stay,
    (State.PENDING, Verdict.BAD): _worsen,
    (State.PENDING, Verdict.GOOD): _calm,
    (State.PENDING, Verdict.NODATA): _hold,
    (State.PENDING, Verdict.ERROR): _stay,
    (State.PENDING, Verdict.RAISE): _raise,
    (State.PENDING, Verdict.RESOLVE): _calm,
    (State.FIRING, Verdict.BAD): _relapse,
    (State.FIRING, Verdict.GOOD): _improve,
    (State.FIRING, Verdict.NODATA): _hold,
    (State.FIRING, Verdict.ERROR): _stay,
    (State.FIRING, Verdict.RAISE): _stay,
    (State.FIRING, Verdict.RESOLVE): _end,
    (State.RESOLVED, Verdict.BAD): _begin,
    (State.RESOLVED, Verdict.GOOD): _stay,
    (State.RESOLVED, Verdict.NODATA): _stay,
    (State.RESOLVED, Verdict.ERROR): _stay,
    (State.RESOLVED, Verdict.RAISE): _raise,
    (State.RESOLVED, Verdict.RESOLVE): _stay,
}
