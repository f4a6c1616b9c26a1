"""Digests as they are kept: few centroids, in few bits, and still the right percentiles."""

from __future__ import annotations

import math
import random
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tdigest import TDigest as IndependentDigest

from pipeline.core.centroids import pack, unpack
from pipeline.core.digest import quantiles
from pipeline.core.kept import CENTROIDS, Sums, merge, sums_of
from pipeline.core.part import Part
from pipeline.core.series import Series
from pipeline.core.thinning import phase, thin
from tests.pure.test_digest import QS, SHAPES, day, exact

SERIES = Series("s", "span", "s")
MIDNIGHT = 1_800_000_000 // 86_400 * 86_400
durations = st.floats(min_value=0, max_value=1e12, allow_nan=False)
weights = st.integers(1, 3) | st.integers(1, 300) | st.integers(1, 5_000_000_000)
centroids = st.lists(st.tuples(durations, weights), min_size=1, max_size=200)


def rolled_up(shape: str) -> tuple[list[float], list[Sums], Sums]:
    """A day's values, what is kept of its hours, and of the day."""
    values, minutes = day(shape)
    found = [merge([sums_of(Part(SERIES, 0, one))], 60, MIDNIGHT + 60 * i) for i, one in enumerate(minutes)]
    for seconds, several in ((300, 5), (3_600, 12)):
        found = [
            merge(found[i : i + several], seconds, MIDNIGHT + i // several * seconds)
            for i in range(0, len(found), several)
        ]
    return values, found, merge(found, 86_400, MIDNIGHT)


def pooled(several: list[Sums]) -> tuple[list[float], list[float]]:
    both = [unpack(one.numbers, one.low, one.high) for one in several]
    return [mean for means, _ in both for mean in means], [weight for _, them in both for weight in them]


@pytest.mark.parametrize("shape", SHAPES)
def test_percentiles_of_a_day_stay_within_one_percent_through_all_levels(shape: str) -> None:
    values, hours, whole = rolled_up(shape)
    true = [exact(values, q) for q in QS]
    for kept in (hours, [whole]):
        assert all(len(pooled([one])[0]) <= CENTROIDS[3_600 if kept is hours else 86_400] for one in kept)
        means, their_weights = pooled(kept)
        assert quantiles(means, their_weights, min(values), max(values), QS) == pytest.approx(true, rel=0.01)
        assert sum(their_weights) == len(values)
        many = quantiles(means, their_weights, min(values), max(values), [i / 1_000 for i in range(1_001)])
        assert all(one <= other for one, other in pairwise(many) if one is not None and other is not None)
    assert (whole.count, whole.low, whole.high) == (len(values), min(values), max(values))
    assert whole.total == pytest.approx(math.fsum(values), rel=1e-12)
    if shape != "bimodal":  # it reads a percentile between the modes there
        other = IndependentDigest(delta=0.005)
        other.batch_update(values[:5_000])
        assert quantiles(*pooled(hours), min(values), max(values), QS) == pytest.approx(
            [other.percentile(q * 100) for q in QS], rel=0.1
        )


@settings(deadline=None)
@given(centroids)
def test_what_is_packed_keeps_weights_exactly_and_means_to_a_two_thousandth(
    given_ones: list[tuple[float, int]],
) -> None:
    pairs = sorted(given_ones)
    means, sizes = [mean for mean, _ in pairs], [float(weight) for _, weight in pairs]
    numbers = pack(means, sizes)
    assert all(-32_768 <= number <= 32_767 for number in numbers)
    found_means, found_weights = unpack(numbers, means[0], means[-1])
    assert sum(found_weights) == sum(sizes)
    assert (min(found_means), max(found_means)) == (means[0], means[-1]) or len(means) > 1
    places = iter(zip(found_means, found_weights, strict=True))
    for mean, weight in zip(means, sizes, strict=True):
        left = weight
        while left:
            found, part = next(places)
            left -= part
            assert left >= 0
            assert found == pytest.approx(mean, rel=1 / 2_048, abs=2.5e-7)


@pytest.mark.parametrize("value", [0.0, 1.0, 7.0, 2_047.0, 12.5, 0.25, 1e12, 1e308])
def test_round_numbers_are_packed_exactly_and_absurd_ones_at_their_limits(value: float) -> None:
    [found], _ = unpack(pack([value], [1.0]), 0.0, value)
    assert found == (value if value < 1e12 else pytest.approx(min(value, 4.4e12), rel=1e-2))


@settings(deadline=None)
@given(centroids, st.integers(2, 60), st.integers(0, 10**9))
def test_thinning_keeps_weights_and_order_and_stays_within_the_values(
    given_ones: list[tuple[float, int]], size: int, place: int
) -> None:
    means = [mean for mean, _ in given_ones]
    found, found_weights = thin(means, [float(weight) for _, weight in given_ones], size, phase(place))
    assert len(found) <= max(size, 1)
    assert sum(found_weights) == sum(weight for _, weight in given_ones)
    assert all(weight == int(weight) for weight in found_weights)
    assert found == sorted(found)
    assert min(means) <= found[0]
    assert found[-1] <= max(means)


def test_centroids_lie_closest_where_percentiles_are_asked_for() -> None:
    draw = random.Random(1)
    values = [draw.lognormvariate(0, 1) for _ in range(5_000)]
    ranks = list(accumulate(thin(values, [1.0] * 5_000, 40)[1]))
    assert sum(4_500 < rank < 4_985 for rank in ranks) > sum(rank < 1_750 for rank in ranks)


def test_few_centroids_are_left_as_they_are() -> None:
    assert thin([3.0, 1.0, 2.0], [1.0, 1.0, 5.0], 3) == ([1.0, 2.0, 3.0], [1.0, 5.0, 1.0])


def test_nothing_is_merged_across_the_gap_between_two_modes() -> None:
    fast, slow = [2 + i / 1_000 for i in range(300)], [400 + i / 10 for i in range(10)]
    means, found_weights = thin(fast + slow, [1.0] * 310, 20)
    assert not [mean for mean in means if 2.3 < mean < 400]
    assert sum(weight for mean, weight in zip(means, found_weights, strict=True) if mean >= 400) == 10


def test_windows_that_follow_each_other_have_phases_that_lie_apart() -> None:
    phases = sorted(phase(MIDNIGHT // 3_600 + hour) for hour in range(24))
    assert all(0 <= one < 1 for one in phases)
    assert min(right - left for left, right in pairwise(phases)) > 0.01
