"""Until when the cache may serve."""

from __future__ import annotations

import math

from pipeline.core.freshness import Freshness, Probe
from pipeline.core.snapshot import Snapshot


def at(xmax: int, *running: int, server: str = "s") -> Probe:
    return Probe(Snapshot(min(running, default=xmax), xmax, frozenset(running)), server)


def position(xmax: int, *running: int) -> Snapshot:
    return at(xmax, *running).snapshot


def test_validity_counts_from_before_the_question_and_not_from_the_position() -> None:
    fresh = Freshness(1.0)
    fresh.answered(100.0, at(10))
    assert fresh.valid_until == -math.inf
    fresh.on_position(position(10))
    assert fresh.valid_until == 101.0


def test_a_position_that_came_before_the_answer_counts_too() -> None:
    fresh = Freshness(1.0)
    fresh.on_position(position(10))
    fresh.answered(100.0, at(10))
    assert fresh.valid_until == 101.0


def test_a_position_covers_only_the_probes_that_it_is_past() -> None:
    fresh = Freshness(1.0)
    for t0, xmax in ((100.0, 10), (100.3, 12), (100.6, 15)):
        fresh.answered(t0, at(xmax))
    fresh.on_position(position(13))
    assert fresh.valid_until == 101.3
    fresh.on_position(position(15))
    assert fresh.valid_until == 101.6


def test_a_transaction_that_the_probe_saw_and_the_position_did_not_holds_validity_back() -> None:
    fresh = Freshness(1.0)
    fresh.answered(100.0, at(10))
    fresh.on_position(position(10, 7))
    assert fresh.valid_until == -math.inf
    fresh.on_position(position(10))
    assert fresh.valid_until == 101.0


def test_a_feed_that_is_down_extends_nothing_and_takes_nothing_back() -> None:
    fresh = Freshness(1.0)
    fresh.on_position(position(10))
    fresh.answered(100.0, at(10))
    fresh.on_down()
    fresh.answered(100.5, at(10))
    assert fresh.valid_until == 101.0
    fresh.on_position(position(10))
    assert fresh.valid_until == 101.5


def test_after_a_flush_a_new_probe_and_a_new_position_are_needed() -> None:
    fresh = Freshness(1.0)
    fresh.on_position(position(10))
    fresh.answered(100.0, at(10))
    fresh.on_flush()
    fresh.on_position(position(11))
    assert fresh.age(100.1) is None
    fresh.answered(100.2, at(11))
    assert fresh.valid_until == 101.2


def test_probes_of_another_server_count_only_after_the_feed_has_noticed() -> None:
    fresh = Freshness(1.0)
    fresh.answered(100.0, at(10, server="old"))
    fresh.on_position(position(20))
    fresh.answered(100.2, at(12, server="new"))
    assert fresh.valid_until == 101.0
    fresh.on_flush()
    fresh.answered(100.4, at(12, server="new"))
    fresh.on_position(position(12))
    assert fresh.valid_until == 101.4


def test_the_age_of_what_is_served_is_told_and_ends_with_validity() -> None:
    fresh = Freshness(1.0)
    fresh.on_position(position(10))
    fresh.answered(100.0, at(10))
    assert fresh.age(100.25) == 0.25
    assert fresh.age(101.0) == 1.0
    assert fresh.age(101.001) is None


def test_probes_that_are_never_covered_do_not_pile_up() -> None:
    fresh = Freshness(1.0)
    for step in range(1_000):
        fresh.answered(step / 4, at(10 + step))
    fresh.on_position(position(10_000))
    assert fresh.valid_until == 999 / 4 + 1.0
    assert len(fresh._probes) == 0
