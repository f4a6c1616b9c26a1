"""The line of a pool against a model: nobody out of turn, no connection lost, never too many."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.core.pool_line import Line
from tests.pure.machine_kit import run


class Con:
    def __init__(self, number: int) -> None:
        self.number = number
        self.idle_since = -1.0


class One:
    """A waiter. cancelled: gone, though the line does not know yet."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ticket = 0
        self.cancelled = False
        self.got: Con | None = None


def hand(one: One, con: Con) -> bool:
    if one.cancelled:
        return False
    assert one.got is None
    one.got = con
    return True


class Lines(RuleBasedStateMachine):
    """The model: those who wait, by arrival; where each connection is; what is being opened."""

    @initialize(most=st.integers(1, 4), least=st.integers(0, 2), parallel=st.integers(1, 3))
    def begin(self, most: int, least: int, parallel: int) -> None:
        self.line: Line[One, Con] = Line(hand, most=most, least=min(least, most), fresh=5.0, parallel=parallel)
        self.now = 100.0
        self.waiting: list[One] = []
        self.out: dict[Con, One | None] = {}
        self.checking: list[Con] = []
        self.idle: list[Con] = []
        self.opening = 0
        self.count = 0

    def given(self, con: Con) -> None:
        """Give it to the line, and see that the first who still waits has it."""
        first = next((one for one in self.waiting if not one.cancelled), None)
        self.line.give(con, self.now)
        if first is None:
            self.idle.append(con)
            self.waiting = []
        else:
            assert first.got is con
            self.waiting = self.waiting[self.waiting.index(first) + 1 :]
            self.out[con] = first

    def pump(self) -> None:
        while (con := self.line.check()) is not None:
            assert con is self.idle[-1]
            self.idle.pop()
            self.checking.append(con)
        number = self.line.open()
        assert number >= 0
        self.opening += number

    @rule()
    def newcomer(self) -> None:
        self.count += 1
        one = One(self.count)
        con = self.line.take(self.now)
        if con is None:
            assert self.waiting or not self.idle or self.idle[-1].idle_since < self.now - 5.0
            self.line.join(one)
            self.waiting.append(one)
            self.pump()
        else:
            assert not self.waiting
            assert con is self.idle.pop()
            assert con.idle_since >= self.now - 5.0
            self.out[con] = one

    @precondition(lambda self: any(con for con, one in self.out.items()))
    @rule(data=st.data())
    def returned(self, data: Any) -> None:
        con = data.draw(st.sampled_from(sorted(self.out, key=lambda con: con.number)))
        del self.out[con]
        self.given(con)

    @precondition(lambda self: self.opening)
    @rule(well=st.booleans())
    def opening_ends(self, well: bool) -> None:
        self.opening -= 1
        if well:
            self.count += 1
            self.line.opened()
            self.given(Con(self.count))
        else:
            self.line.not_opened()
        self.pump()

    @precondition(lambda self: self.checking)
    @rule(well=st.booleans())
    def check_ends(self, well: bool) -> None:
        con = self.checking.pop(0)
        if well:
            self.given(con)
        else:
            self.line.gone(con)
        self.pump()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), knows=st.booleans())
    def gives_up(self, data: Any, knows: bool) -> None:
        """knows: it leaves at once; otherwise the line finds out when it hands something over."""
        one = data.draw(st.sampled_from(self.waiting))
        if knows:
            assert self.line.leave(one)
            assert not self.line.leave(one)
            self.waiting.remove(one)
        else:
            one.cancelled = True

    @precondition(lambda self: any(one is not None and one.got for one in self.out.values()))
    @rule(data=st.data(), dead=st.booleans())
    def handed_in_vain(self, data: Any, dead: bool) -> None:
        """It was handed over and the waiter is cancelled before it looks, or finds it dead."""
        handed = [con for con, one in self.out.items() if one is not None and one.got is con]
        con = data.draw(st.sampled_from(sorted(handed, key=lambda con: con.number)))
        one = self.out.pop(con)
        assert one is not None
        if dead:
            self.line.gone(con)
            one.got = None
            self.line.rejoin(one)
            self.waiting = sorted([*self.waiting, one], key=lambda one: one.ticket)
            self.pump()
        else:
            assert not self.line.leave(one)
            self.given(con)

    @rule(data=st.data())
    def dies(self, data: Any) -> None:
        everywhere = [*self.idle, *self.checking, *self.out]
        if everywhere:
            con = data.draw(st.sampled_from(sorted(everywhere, key=lambda con: con.number)))
            self.line.gone(con)
            self.idle = [one for one in self.idle if one is not con]
            self.checking = [one for one in self.checking if one is not con]
            self.out.pop(con, None)
            self.pump()

    @rule(seconds=st.sampled_from([0.5, 3.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.pump()

    @rule()
    def reap(self) -> None:
        tired = self.line.tired(self.now, 10.0)
        old = [con for con in self.idle if con.idle_since <= self.now - 10.0]
        assert tired == old[: max(0, self.line.size - self.line.least)]
        for con in tired:
            self.line.gone(con)
            self.idle.remove(con)

    @invariant()
    def nothing_is_lost_and_nobody_waits_needlessly(self) -> None:
        if not hasattr(self, "line"):
            return
        line = self.line
        assert list(line.waiting) == self.waiting
        assert [one.ticket for one in line.waiting] == sorted(one.ticket for one in line.waiting)
        assert list(line.idle) == self.idle
        assert line.checking == set(self.checking)
        assert line.opening == self.opening <= line.parallel
        assert line.size == len(self.idle) + len(self.checking) + len(self.out)
        assert line.size + line.opening <= line.most
        if self.waiting and not self.out and line.size + line.opening < line.most:
            assert line.opening or line.checking, "they wait, and nothing is on its way"


def test_the_line_agrees_with_its_model() -> None:
    run(Lines, 120)


def test_a_newcomer_does_not_pass_one_who_was_handed_a_dead_connection() -> None:
    line: Line[One, Con] = Line(hand, most=3)
    line.size = 3
    unlucky = One(1)
    line.join(unlucky)
    dead, *others = Con(1), Con(2), Con(3)
    for con in (dead, *others):
        line.give(con, 100.0)
    line.gone(dead)
    line.rejoin(unlucky)
    assert line.take(100.0) is None
    assert line.check() is others[1]


@pytest.mark.parametrize(
    ("waiting", "size", "opening", "begun"),
    [
        (0, 0, 0, 1),
        (1, 0, 0, 1),
        (3, 1, 0, 3),
        (9, 0, 0, 4),
        (9, 8, 0, 2),
        (9, 10, 0, 0),
        (9, 0, 3, 1),
        (0, 1, 0, 0),
    ],
)
def test_as_many_are_opened_as_are_waited_for_and_no_more_at_once_than_four(
    waiting: int, size: int, opening: int, begun: int
) -> None:
    line: Line[One, Con] = Line(hand, most=10, least=1)
    line.size, line.opening = size, opening
    for number in range(waiting):
        line.join(One(number))
    assert line.open() == begun
