"""The life of an alert, transition by transition and against a tiny model."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.alert import NEVER, TABLE, Change, Life, Policy, State, Step, Verdict, step

POLICY = Policy(need=3, keep_firing=2, hold_max=3)
LETTERS = {
    "b": Verdict.BAD,
    "g": Verdict.GOOD,
    "-": Verdict.NODATA,
    "x": Verdict.ERROR,
    "R": Verdict.RAISE,
    "r": Verdict.RESOLVE,
}
SHOWN = {State.INACTIVE: "i", State.PENDING: "p", State.FIRING: "F", State.RESOLVED: "r"}


def live(verdicts: str, policy: Policy = POLICY, life: Life = NEVER) -> tuple[Life, str, list[Change]]:
    """The life after the verdicts, the state after each, and what was told."""
    shown, told = "", []
    for window, letter in enumerate(verdicts, 1):
        life, change = step(life, LETTERS[letter], Step(float(window), window, policy))
        shown += SHOWN[life.state]
        if change:
            told.append(change)
    return life, shown, told


def test_every_state_has_a_transition_for_every_verdict() -> None:
    assert set(TABLE) == {(state, verdict) for state in State for verdict in Verdict}


@pytest.mark.parametrize(
    ("verdicts", "states", "told"),
    [
        ("bbb", "ppF", ["firing"]),
        ("bbg", "ppi", []),
        ("bbgbb", "ppipp", []),
        ("bbbg", "ppFF", ["firing"]),
        ("bbbgg", "ppFFr", ["firing", "resolved"]),
        ("bbbgbg", "ppFFFF", ["firing"]),
        ("bbbgbgg", "ppFFFFr", ["firing", "resolved"]),
        ("b-b-b", "ppppF", ["firing"]),  # silence holds a streak
        ("bb---", "ppppi", []),  # and ends it after hold_max
        ("bb--b", "ppppF", ["firing"]),
        ("b--b--b", "ppppppF", ["firing"]),  # silent windows count in succession
        ("bxxxxbb", "ppppppF", ["firing"]),  # a failed query changes nothing
        ("bbb" + "-" * 50, "pp" + "F" * 51, ["firing"]),  # no data is not good news
        ("bbbg-g", "ppFFFr", ["firing", "resolved"]),
        ("bbbxg", "ppFFF", ["firing"]),
        ("bbbggb", "ppFFrp", ["firing", "resolved"]),
        ("bbbggbbb", "ppFFrppF", ["firing", "resolved", "firing"]),
        ("bbbgggg-xr", "ppFFrrrrrr", ["firing", "resolved"]),
        ("bbbggbg", "ppFFrpi", ["firing", "resolved"]),
        ("R", "F", ["firing"]),
        ("RRR", "FFF", ["firing"]),
        ("Rr", "Fr", ["firing", "resolved"]),
        ("RrR", "FrF", ["firing", "resolved", "firing"]),
        ("r", "i", []),
        ("bR", "pF", ["firing"]),
        ("br", "pi", []),
        ("-xg", "iii", []),
    ],
)
def test_verdicts_lead_to_these_states(verdicts: str, states: str, told: list[Change]) -> None:
    assert live(verdicts)[1:] == (states, told)


def test_with_need_one_the_first_bad_window_fires() -> None:
    one = Policy(need=1, keep_firing=1)
    assert live("bgbg", one)[1:] == ("FrFr", ["firing", "resolved"] * 2)


def test_an_episode_keeps_its_name_and_its_times() -> None:
    life = live("bbbgg")[0]
    assert (life.episode, life.active_at, life.fired_at, life.resolved_at) == (1, 1.0, 3.0, 5.0)
    again = live("bbbggbbb")[0]
    assert (again.episode, again.active_at, again.fired_at, again.resolved_at) == (6, 6.0, 8.0, None)


def test_a_firing_alert_without_data_says_so_until_data_comes() -> None:
    assert [live(verdicts)[0].nodata for verdicts in ("bbb--", "bbb---", "bbb---b", "bbb---g")] == [
        False,
        True,
        False,
        False,
    ]


def model(verdicts: str, policy: Policy) -> tuple[str, int]:
    """Whether it fires at the end, and how often it began to, said by looking at the whole past."""
    firing, fired, bad, good, silent = False, 0, 0, 0, 0
    for letter in verdicts:
        if letter == "x":
            continue
        if letter == "-":
            silent += 1
            if not firing and silent >= policy.hold_max:
                bad = 0
            continue
        silent = 0
        bad, good = (bad + 1, 0) if letter == "b" else (0, good + 1)
        if not firing and bad >= policy.need:
            firing, fired = True, fired + 1
        elif firing and good >= policy.keep_firing:
            firing, bad = False, 0
    return ("F" if firing else "", fired)


policies = st.builds(Policy, st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))


@settings(deadline=None)
@given(st.text("bbbg-x", max_size=40), policies)
def test_a_life_agrees_with_the_model(verdicts: str, policy: Policy) -> None:
    life, _, told = live(verdicts, policy)
    assert ("F" if life.state is State.FIRING else "", told.count("firing")) == model(verdicts, policy)


@settings(deadline=None)
@given(st.text("bg-xRr", max_size=40), policies)
def test_firing_and_resolved_are_told_in_turns(verdicts: str, policy: Policy) -> None:
    life, _, told = live(verdicts, policy)
    assert told == (["firing", "resolved"] * 20)[: len(told)]
    assert (life.state is State.FIRING) == (len(told) % 2 == 1)
