"""Positions: what they see and how they compare, against a model that lists every transaction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.snapshot import BEGINNING, Snapshot

MOST = 14  # transactions in a model's history


@st.composite
def snapshots(draw: st.DrawFn) -> tuple[Snapshot, set[int]]:
    """A position and, by listing them, the transactions that had ended at it."""
    xmax = draw(st.integers(1, MOST))
    running = draw(st.frozensets(st.integers(1, MOST).filter(lambda xid: xid < xmax)))
    xmin = min(running, default=xmax)
    return Snapshot(xmin, xmax, running), set(range(1, xmax)) - running


@given(snapshots(), st.integers(1, MOST + 3))
def test_a_position_sees_the_transactions_that_had_ended(one: tuple[Snapshot, set[int]], xid: int) -> None:
    snapshot, ended = one
    assert snapshot.sees(xid) == (xid in ended)


@given(snapshots(), snapshots())
def test_a_position_covers_another_when_it_sees_all_that_the_other_sees(
    one: tuple[Snapshot, set[int]], other: tuple[Snapshot, set[int]]
) -> None:
    (later, seen), (earlier, needed) = one, other
    if later.covers(earlier):
        assert needed <= seen
    elif later.xmax >= earlier.xmax:
        assert not needed <= seen
    # with a smaller xmax it says no even where the rest had not ended: it cannot know that of the future
    assert later.covers(later)


@given(snapshots())
def test_every_position_covers_the_beginning_and_only_an_empty_one_is_covered_by_it(
    one: tuple[Snapshot, set[int]],
) -> None:
    snapshot, ended = one
    assert snapshot.covers(BEGINNING)
    assert BEGINNING.covers(snapshot) == (snapshot.xmax == 1)
    assert not (BEGINNING.covers(snapshot) and ended)


@given(snapshots(), snapshots(), snapshots())
def test_covering_is_transitive(
    one: tuple[Snapshot, set[int]], two: tuple[Snapshot, set[int]], three: tuple[Snapshot, set[int]]
) -> None:
    if one[0].covers(two[0]) and two[0].covers(three[0]):
        assert one[0].covers(three[0])


@given(snapshots())
def test_the_text_form_is_read_back(one: tuple[Snapshot, set[int]]) -> None:
    assert Snapshot.parse(str(one[0])) == one[0]


def test_the_text_form_is_postgres_own() -> None:
    snapshot = Snapshot.parse("740:18446744073709551610:741,18446744073709551600")
    assert snapshot == Snapshot(740, 18446744073709551610, frozenset({741, 18446744073709551600}))
    assert str(snapshot) == "740:18446744073709551610:741,18446744073709551600"
    assert str(Snapshot(3, 3)) == "3:3:"


@pytest.mark.parametrize("text", ["", "1:2", "1:2:3:4", "a:b:", "1:2:x", "1:2:3,", "None"])
def test_anything_else_is_no_position(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Snapshot.parse(text)
