"""Differences of counters against a model of the server that evicts, resets, crashes and fails over."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipeline.core.statement_delta import (
    CALLS,
    COUNTERS,
    OTHER,
    TOTAL_MS,
    Counts,
    Entry,
    Key,
    Store,
    collect,
    compare,
    keep,
)
from tests.pure.machine_kit import run

KEYS: list[Key] = [(10, number, True) for number in range(1, 6)]
STORE = Store("a-1-5-all", 1.0, 10.0, 0)


def counters(calls: float = 0.0, total_ms: float = 0.0, rows: float = 0.0) -> tuple[float, ...]:
    return (calls, total_ms, rows, *[0.0] * (len(COUNTERS) - 3))


def entry(calls: float, ms: float, *, most: float = 1.0, since: float | None = 2.0) -> Entry:
    return Entry(counters(calls, ms), most, since, since)


class Live:
    """One entry of the model's server. Calls are whole numbers of milliseconds, so that sums are exact."""

    def __init__(self, since: float) -> None:
        self.since = self.max_since = since
        self.calls = self.total = self.most = 0.0


class Server(RuleBasedStateMachine):
    """pg_stat_statements with room for three entries, and whoever looks at it."""

    @initialize(modern=st.booleans())
    def start(self, modern: bool) -> None:
        self.modern = modern
        self.clock = 100.0
        self.name = 1
        self.reset_at = self.clock
        self.deallocs = 0
        self.live: dict[Key, Live] = {}
        self.running: dict[Key, Live] = {}
        self.last: tuple[Store, dict[Key, Entry] | None] | None = None
        self.truth: dict[Key, list[float]] = {}  # the calls since the last look
        self.held: dict[Key, Counts] = {}
        self.executed: dict[Key, list[float]] = {}  # since the first look
        self.blind = False  # an entry was reset that nobody had seen, or before Postgres 17

    def tick(self) -> float:
        self.clock += 1.0
        return self.clock

    def made(self, key: Key) -> Live:
        if key not in self.live:
            if len(self.live) >= 3:
                least = min(self.live, key=lambda one: (self.live[one].calls, one))
                del self.live[least]
                self.running.pop(least, None)
                self.deallocs += 1
            self.live[key] = Live(self.tick())
        return self.live[key]

    @rule(key=st.sampled_from(KEYS), ms=st.integers(1, 50), times=st.integers(1, 4))
    def execute(self, key: Key, ms: int, times: int) -> None:
        one = self.made(key)
        for _ in range(times):
            one.calls += 1
            one.total += ms
            one.most = max(one.most, ms)
            self.truth.setdefault(key, []).append(float(ms))
            self.executed.setdefault(key, []).append(float(ms))

    @rule(key=st.sampled_from(KEYS))
    def begin(self, key: Key) -> None:
        """A statement makes its entry when it is planned; it is seen once it has ended."""
        self.made(key)

    @rule()
    def reset(self) -> None:
        self.live, self.reset_at, self.deallocs = {}, self.tick(), 0

    @rule(key=st.sampled_from(KEYS))
    def reset_one(self, key: Key) -> None:
        seen = self.last is not None and key in (self.last[1] or {})
        if self.live.pop(key, None) is not None and not (self.modern and seen):
            self.blind = True

    @rule(key=st.sampled_from(KEYS))
    def reset_maximum(self, key: Key) -> None:
        one = self.live.get(key)
        if one is not None and self.modern:
            one.most, one.max_since = 0.0, self.tick()

    @rule()
    def restart(self) -> None:
        """What is saved comes back as it was."""
        self.tick()

    @rule()
    def crash(self) -> None:
        self.reset()
        if self.last is not None:
            self.last = (self.last[0], None)

    @rule(calls=st.integers(1, 9))
    def fail_over(self, calls: int) -> None:
        """To a standby, which has counted reads of its own since long ago."""
        self.name += 1
        self.reset_at, self.deallocs = 50.0, 3
        self.live = {key: Live(60.0) for key in KEYS[:2]}
        for one in self.live.values():
            one.calls, one.total, one.most = float(calls), float(calls), 1.0

    @rule(forget=st.booleans())
    def look(self, forget: bool) -> None:
        """forget: by a process that does not know what the last one saw but from the table."""
        store = Store(f"{self.name}", self.reset_at, self.tick(), self.deallocs)
        seen = collect(
            (key, Entry(counters(one.calls, one.total), one.most, *self.ages(one)))
            for key, one in self.live.items()
            if one.calls
        )
        before = self.last
        if forget and before is not None and before[1] is not None:
            before = (before[0], dict(before[1]))
        delta = compare(before, store, seen)
        first = before is None
        self.last = (store, seen)
        for key, counts in delta.counts.items():
            self.held[key] = self.held[key] + counts if key in self.held else counts
            done = self.truth.get(key, [])
            assert counts.counters[CALLS] <= len(done), "more calls than there were"
            assert counts.counters[TOTAL_MS] <= sum(done), "more time than was spent"
            if counts.low_max == counts.high_max and not delta.lost and not self.blind:
                assert counts.low_max == max(done)
            if not delta.lost and not self.blind:
                assert counts.low_max <= max(done) <= counts.high_max
        if not delta.lost and not self.blind:
            told = {key: counts.counters[CALLS] for key, counts in delta.counts.items()}
            assert told == {key: float(len(done)) for key, done in self.truth.items()}
        self.truth = {}
        self.blind = False
        if first:
            assert not delta.counts
            self.executed = {}

    def ages(self, one: Live) -> tuple[float | None, float | None]:
        return (one.since, one.max_since) if self.modern else (None, None)

    @invariant()
    def never_more_than_the_truth(self) -> None:
        for key, counts in getattr(self, "held", {}).items():
            done = self.executed.get(key, [])
            assert counts.counters[CALLS] <= len(done)
            assert counts.low_max <= max(done, default=0.0)


def test_no_call_counts_twice_and_none_is_lost_untold() -> None:
    run(Server, 250)


def test_the_first_look_counts_nothing() -> None:
    delta = compare(None, STORE, {KEYS[0]: entry(5, 5.0)})
    assert (delta.gap, dict(delta.counts)) == ("first", {})


def test_counters_that_began_before_the_last_look_are_others() -> None:
    restored = Store(STORE.name, 0.5, 20.0, 0)
    delta = compare((STORE, {}), restored, {KEYS[0]: entry(5, 5.0)})
    assert (delta.gap, dict(delta.counts)) == ("other", {})


def test_an_entry_that_was_not_there_counts_from_zero() -> None:
    delta = compare((STORE, {}), STORE, {KEYS[0]: entry(2, 3.0, most=2.5)})
    assert delta.counts == {KEYS[0]: Counts(counters(2, 3.0), 2.5, 2.5)}
    assert not delta.lost


def test_an_entry_that_came_back_counts_from_zero_and_what_it_had_before_is_lost() -> None:
    delta = compare((STORE, {KEYS[0]: entry(2, 2.0)}), STORE, {KEYS[0]: entry(9, 9.0, since=20.0)})
    assert delta.counts[KEYS[0]].counters[CALLS] == 9
    assert (delta.vanished, delta.lost) == (1, True)


def test_an_entry_that_is_gone_may_have_counted_more() -> None:
    delta = compare((STORE, {KEYS[0]: entry(5, 5.0)}), STORE, {})
    assert (delta.vanished, delta.lost) == (1, True)


def test_counters_that_went_back_count_nothing_and_are_counted_as_such() -> None:
    before = {KEYS[0]: entry(5, 5.0, since=None)}
    delta = compare((STORE, before), STORE, {KEYS[0]: entry(2, 9.0, since=None)})
    assert (dict(delta.counts), delta.rebased, delta.lost) == ({}, 1, True)


def test_several_entries_of_one_key_are_summed_up_before_they_are_compared() -> None:
    key = KEYS[0]
    before = collect([(key, entry(5, 5.0)), (key, entry(1, 1.0))])
    now = collect([(key, entry(1, 1.0)), (key, entry(7, 9.0))])  # in another order
    assert compare((STORE, before), STORE, now).counts[key].counters == counters(2, 4.0)


def test_an_entry_that_did_nothing_is_not_told() -> None:
    same = {KEYS[0]: entry(5, 5.0)}
    assert compare((STORE, same), STORE, dict(same)).counts == {}


@pytest.mark.parametrize(
    ("before", "now", "bounds"),
    [
        (entry(5, 9.0, most=3.0), entry(7, 19.0, most=8.0), (8.0, 8.0)),
        (entry(5, 9.0, most=3.0), entry(7, 10.0, most=3.0), (0.0, 3.0)),
        (entry(5, 9.0, most=3.0), entry(6, 11.0, most=3.0), (2.0, 2.0)),
        (entry(5, 9.0, most=3.0), Entry(counters(7, 12.0), 2.0, 2.0, 30.0), (2.0, inf)),
        (entry(5, 9.0, most=3.0), Entry(counters(5, 9.0, rows=1.0), 3.0, 2.0, 2.0), (0.0, 0.0)),
    ],
    ids=["it grew", "it did not grow", "one call", "it was reset", "no call"],
)
def test_a_maximum_is_known_only_where_it_must_have_been_in_between(
    before: Entry, now: Entry, bounds: tuple[float, float]
) -> None:
    counts = compare((STORE, {KEYS[0]: before}), STORE, {KEYS[0]: now}).counts[KEYS[0]]
    assert (counts.low_max, counts.high_max) == bounds


def test_the_maximum_of_an_entry_that_is_new_is_unknown_when_it_was_reset_alone() -> None:
    delta = compare((STORE, {}), STORE, {KEYS[0]: Entry(counters(9, 9.0), 2.0, 20.0, 25.0)})
    assert (delta.counts[KEYS[0]].low_max, delta.counts[KEYS[0]].high_max) == (2.0, inf)


def test_bounds_of_maxima_merge() -> None:
    grew, unknown = Counts(counters(1), 8.0, 8.0), Counts(counters(1), 0.0, 8.0)
    assert ((grew + unknown).low_max, (grew + unknown).high_max) == (8.0, 8.0)
    another = Counts(counters(1), 2.0, 2.0)
    assert ((unknown + another).low_max, (unknown + another).high_max) == (2.0, 8.0)


def test_the_rest_is_summed_up_under_one_key_and_nothing_is_lost() -> None:
    counts = {(10, number, True): Counts(counters(1, float(number)), 0.0, 1.0) for number in range(1, 8)}
    kept = keep(counts, 3)
    assert set(kept) == {(10, 7, True), (10, 6, True), (10, 5, True), OTHER}
    assert kept[OTHER].counters == counters(4, 1 + 2 + 3 + 4)
    assert keep(counts, 7) == counts
