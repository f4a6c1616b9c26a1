"""The digest: accuracy, monotone quantiles, merging."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tdigest import TDigest as IndependentDigest

from pipeline.core.digest import Digest, quantiles

QS = (0.5, 0.95, 0.99)
SHAPES: dict[str, Callable[[random.Random], float]] = {
    "lognormal": lambda r: r.lognormvariate(0, 1),
    "bimodal": lambda r: r.gauss(2, 0.3) if r.random() < 0.97 else r.gauss(400, 20),
    "pareto": lambda r: r.paretovariate(1.5),
    "integer": lambda r: float(r.randint(1, 200)),
    "constant": lambda _r: 7.0,
}
finite = st.floats(min_value=0, max_value=1e9, allow_nan=False)


def exact(values: list[float], q: float) -> float:
    """percentile_cont."""
    ordered, rank = sorted(values), q * (len(values) - 1)
    below = math.floor(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (rank - below)


def day(shape: str, seed: int = 1) -> tuple[list[float], list[Digest]]:
    """A day's values and its 1,440 minute digests."""
    draw = random.Random(seed)
    minutes = [[SHAPES[shape](draw) for _ in range(70)] for _ in range(1_440)]
    return [value for minute in minutes for value in minute], [Digest(minute) for minute in minutes]


def merged(digests: list[Digest]) -> Digest:
    total = Digest()
    for digest in digests:
        total.merge(digest)
    return total


@pytest.mark.parametrize("shape", SHAPES)
def test_percentiles_of_1440_merged_minutes_are_within_one_percent(shape: str) -> None:
    values, minutes = day(shape)
    whole = merged(minutes)
    for q in QS:
        assert whole.quantile(q) == pytest.approx(exact(values, q), rel=0.01)
    assert (whole.count, whole.low, whole.high) == (len(values), min(values), max(values))
    assert whole.total == pytest.approx(math.fsum(values))
    assert (whole.quantile(0), whole.quantile(1)) == (min(values), max(values))
    assert len(whole.centroids()[0]) <= 220
    assert math.fsum(whole.centroids()[1]) == len(values)


@pytest.mark.parametrize("shape", ["lognormal", "pareto", "integer", "constant"])
def test_an_independent_digest_agrees(shape: str) -> None:
    values = day(shape)[0][:5_000]
    other = IndependentDigest(delta=0.005)
    other.batch_update(values)
    ours = Digest(values)
    for q in QS:
        assert ours.quantile(q) == pytest.approx(other.percentile(q * 100), rel=0.03)


@settings(deadline=None)
@given(st.lists(st.lists(finite, min_size=1, max_size=300), min_size=1, max_size=6), st.lists(st.floats(0, 1)))
def test_quantiles_never_fall_as_q_grows(groups: list[list[float]], qs: list[float]) -> None:
    whole = merged([Digest(group) for group in groups])
    found = [value for value in whole.quantiles(sorted({0.0, *qs, 1.0})) if value is not None]
    assert found == sorted(found)
    everything = [value for group in groups for value in group]
    assert (found[0], found[-1]) == (min(everything), max(everything))


@settings(deadline=None)
@given(st.lists(finite, min_size=1, max_size=20), st.floats(0, 1))
def test_a_digest_that_compressed_nothing_answers_as_percentile_cont(values: list[float], q: float) -> None:
    digest = Digest(values)
    assert digest.quantile(q) == pytest.approx(exact(values, q), rel=1e-12, abs=1e-300)


def test_half_and_half_data_has_no_median_between_its_modes_when_the_middle_is_taken() -> None:
    assert Digest([1.0, 1.0, 1.0, 100.0, 100.0]).quantile(0.5) == 1.0


@pytest.mark.parametrize("shape", ["lognormal", "bimodal", "pareto"])
def test_the_order_of_merging_does_not_matter(shape: str) -> None:
    _values, minutes = day(shape)
    shuffled = minutes[:]
    random.Random(5).shuffle(shuffled)
    pairs = [merged(minutes[i : i + 60]) for i in range(0, 1_440, 60)]
    answers = [merged(some).quantiles(QS) for some in (minutes, minutes[::-1], shuffled, pairs)]
    for other in answers[1:]:
        assert other == pytest.approx(answers[0], rel=0.01)


def test_a_digest_survives_its_centroids() -> None:
    digest = merged(day("lognormal")[1][:100])
    means, weights = digest.centroids()
    again = Digest.restore(means, weights, total=digest.total, low=digest.low, high=digest.high)
    assert again.quantiles((0, *QS, 1)) == pytest.approx(digest.quantiles((0, *QS, 1)), rel=1e-3)
    assert (again.count, again.total) == (digest.count, digest.total)


def test_one_by_one_equals_all_at_once_in_everything_exact() -> None:
    one, many = Digest(), Digest([3.0, 1.0, 2.0])
    for value in (3.0, 1.0, 2.0):
        one.add(value)
    assert one.centroids() == many.centroids() == ([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])
    assert (one.count, one.total, one.low, one.high) == (3, 6.0, 1.0, 3.0)


def test_an_empty_digest_knows_nothing() -> None:
    assert Digest().quantile(0.5) is None
    assert quantiles([], [], 0, 0, QS) == [None, None, None]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_and_changes_nothing(bad: float) -> None:
    digest = Digest([1.0])
    with pytest.raises(ValueError, match="finite"):
        digest.add(bad)
    with pytest.raises(ValueError, match="finite"):
        digest.add_many([2.0, bad])
    assert (digest.count, digest.total) == (1, 1.0)


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan])
def test_a_quantile_outside_0_to_1_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Digest([1.0]).quantile(q)
