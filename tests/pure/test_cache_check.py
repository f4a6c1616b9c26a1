"""What explains a difference, what counts as the same, and what the figures say."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from pipeline.core.cache_check import Outcome, Tally, fit, fresh_share, nines, pause_after
from pipeline.core.cache_figures import LONGEST_NAME, MOST_SHOWN, MOST_TOLD, foremost, together, told
from pipeline.core.cache_namespace import Namespace
from pipeline.core.cache_policy import Policy
from pipeline.core.fill import XIDS_KEPT, Fence
from pipeline.core.sameness import same
from pipeline.core.snapshot import Snapshot
from pipeline.core.status import CacheStatus, NamespaceFigures
from pipeline.core.store import Store

TAGS = frozenset({"orders:1"})


def fence() -> Fence:
    made = Fence()
    made.on_position(Snapshot(10, 10))
    return made


@pytest.mark.parametrize(
    ("tag", "xid", "explains"),
    [
        ("orders:1", 10, True),
        ("orders", 10, True),
        ("orders:1:items", 10, True),
        ("orders:1", None, True),
        ("orders:2", 10, False),
        ("items", 10, False),
        ("orders:1", 9, False),  # the position saw it: it is told a second time
    ],
)
def test_a_change_of_its_tags_that_the_position_did_not_see_explains(
    tag: str, xid: int | None, explains: bool
) -> None:
    found = set()
    for table in ("orders", "invoices", "parcels"):  # two tags may share a slot, but hardly so in all of them
        known = fence()
        mark = known.mark(Snapshot(10, 10))
        own = {f"{table}:1"}
        assert not known.changed_since(mark, own)
        known.note(tag.replace("orders", table), xid)
        found.add(known.changed_since(mark, own))
    assert found == {True} if explains else False in found


def test_a_change_before_the_mark_explains_nothing() -> None:
    known = fence()
    known.note("orders:1", 10)
    known.note("orders:1", None)
    known.on_position(Snapshot(11, 11))
    assert not known.changed_since(known.mark(Snapshot(11, 11)), TAGS)
    assert known.changed_since(known.mark(Snapshot(10, 10))._replace(round=0, number=0), TAGS)


def test_a_prefix_that_was_invalidated_explains() -> None:
    known = fence()
    mark = known.mark(Snapshot(10, 10))
    known.note_prefix("ord", 12)
    assert known.changed_since(mark, TAGS)


def test_changes_that_are_no_longer_remembered_explain() -> None:
    known = fence()
    mark = known.mark(Snapshot(10, 10))
    known.note("orders:1", 10)
    for xid in range(XIDS_KEPT):
        known.note("orders:1", xid + 1)  # all of them seen by the position
    assert known.changed_since(mark, TAGS)


def test_while_the_feed_is_down_every_change_explains() -> None:
    known = fence()
    mark = known.mark(None)
    known.note("orders:1", 5)
    assert known.changed_since(mark, TAGS)


@dataclasses.dataclass
class Point:
    x: float
    note: Any = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass
class Insensitive:
    name: str

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Insensitive) and self.name.lower() == other.name.lower()


class Row(msgspec.Struct):
    x: float


class Odd:
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError


class Vague:
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> Any:
        return [True]


NAN = float("nan")
LOOP: list[Any] = []
LOOP.append(LOOP)
OTHER_LOOP: list[Any] = []
OTHER_LOOP.append(OTHER_LOOP)


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [
        (1, 1, True),
        (1, 2, False),
        (1, 1.0, False),
        (1, True, False),
        (None, None, True),
        (NAN, float("nan"), True),
        (NAN, 1.0, False),
        ([{"id": 1}, {"id": 2}], [{"id": 2}, {"id": 1}], True),
        ([1, 1, 2], [1, 2, 2], False),
        ([1], [1, 1], False),
        ({"a": [NAN]}, {"a": [float("nan")]}, True),
        ({"a": 1}, {"b": 1}, False),
        ({1, 2}, {2, 1}, True),
        (Point(NAN, 1), Point(float("nan"), 2), True),
        (Point(1), Point(2), False),
        (Insensitive("a"), Insensitive("A"), True),
        (Row(NAN), Row(float("nan")), True),
        (Row(1), Row(2), False),
        (object(), object(), None),
        ([1, object()], [1, object()], None),
        ([1, object()], [2, object()], False),
        (Odd(), Odd(), None),
        (Vague(), Vague(), None),
        (LOOP, OTHER_LOOP, None),
    ],
)
def test_values_are_the_same_differ_or_cannot_be_told_apart(one: Any, other: Any, answer: bool | None) -> None:
    assert same(one, other) is answer


def test_the_share_shows_no_more_nines_than_there_were_checks() -> None:
    assert fresh_share(0, 0) is None
    assert fresh_share(9, 9) == 0.9
    assert fresh_share(999, 999) == 0.999
    assert fresh_share(998, 999) == 0.998


@pytest.mark.parametrize(
    ("checks", "wrong", "text"),
    [(1, 0, "50 %"), (9, 0, "90 %"), (99, 0, "99 %"), (500, 0, "99 %"), (999, 0, "99.9 %"), (9999, 0, "99.99 %"),
     (9999, 10, "99.89 %"), (10**7, 0, "99.999 %")],
)  # fmt: skip
def test_the_share_is_written_with_the_nines_that_there_are(checks: int, wrong: int, text: str) -> None:
    share = fresh_share(checks - wrong, checks)
    assert share is not None
    assert nines(share, checks) == text


def test_only_hits_that_were_right_and_proved_young_count_as_fresh() -> None:
    tally = Tally()
    for outcome, age in (
        (Outcome.FRESH, 0.3),
        (Outcome.EXPLAINED, 0.9),
        (Outcome.FRESH, 5.0),
        (Outcome.FRESH, 70.0),
        (Outcome.VIOLATION, 0.1),
    ):
        tally.add(outcome, age)
    assert (tally.checks, tally.within_1s, tally.within_60s) == (5, 2, 3)
    assert (tally.explained, tally.violations) == (1, 1)


def test_slow_reads_are_followed_by_long_pauses() -> None:
    assert pause_after(0.001) == 1.0
    assert pause_after(0.5) == 50.0


@pytest.mark.parametrize(
    ("change", "tags", "fits"),
    [
        ({}, TAGS, True),
        ({"ended_at": 5.0}, TAGS, False),
        ({"load_seconds": 2.0}, TAGS, False),
        ({"size": 2 << 20}, TAGS, False),
        ({"policy": Policy(check=False)}, TAGS, False),
        ({"policy": Policy(check=True)}, TAGS, True),
        ({}, frozenset(), False),
    ],
)
def test_what_is_read_again(change: dict[str, Any], tags: frozenset[str], fits: bool) -> None:
    entry = Store(max_bytes=1 << 20, max_entries=10).put("k", 1, tags=tags)
    assert entry is not None
    for name, value in change.items():
        setattr(entry, name, value)
    assert fit(entry) is fits


def space(name: str, hits: int) -> Namespace:
    made = Namespace(name)
    made.hits = hits
    made.gone["expired"] = 2
    made.refused["old"] = 1
    return made


def test_a_report_fits_into_an_event_whatever_the_names_are() -> None:
    spaces = [space("é" * 200 + str(n), 10**12 + n) for n in range(100)]
    for one in spaces:
        one.bytes = one.entries = one.misses = one.stale = one.bypassed = 10**12
        one.loads, one.load_seconds = 3, 1e9
    status = told(spaces, Tally())
    assert len(msgspec.json.encode(status)) < 6_000
    assert len(status.namespaces) == MOST_TOLD + 1
    assert status.namespaces[0].name.endswith("99")
    assert len(status.namespaces[0].name) == LONGEST_NAME
    assert status.namespaces[-1].name == ""
    assert sum(one.hits_total for one in status.namespaces) == status.hits_total
    assert (status.gone, status.refused) == ({"expired": 200}, {"old": 100})


def test_caches_are_summed_up_by_namespace() -> None:
    tally = Tally()
    tally.add(Outcome.FRESH, 0.1)
    one = msgspec.structs.replace(told([space("a", 5), space("b", 1)], tally), age_bound_seconds=0.2)
    other = msgspec.structs.replace(
        told([space("a", 7)], Tally()), age_bound_seconds=0.5, hit_ratio=0.5, entries=3
    )
    both = together([one, other])
    assert [(found.name, found.hits_total) for found in both.namespaces] == [("a", 12), ("b", 1)]
    assert (both.hits_total, both.entries, both.gone) == (13, 3, {"expired": 6})
    assert (both.hit_ratio, both.age_bound_seconds) == (0.5, 0.5)
    assert (both.checks_total, both.fresh_within_1s) == (1, 0.5)
    assert together([one, CacheStatus()]).age_bound_seconds is None


def test_the_rest_of_the_rest_is_one() -> None:
    many = [NamespaceFigures(str(n), hits_total=100 - n) for n in range(40)]
    once = foremost(many, MOST_SHOWN)
    twice = foremost((*once, *many), 2)
    assert [found.name for found in twice] == ["0", "1", ""]
    assert sum(found.hits_total for found in twice) == 2 * sum(found.hits_total for found in many)
