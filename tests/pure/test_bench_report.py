"""The arithmetic of the benchmarks' reports; nothing here measures time."""

from __future__ import annotations

import json

import pytest

from bench.jobs_latency import waits
from bench.report import Report, batch_rate, edges, fall, quantile, ratio


def test_a_ratio_compares_the_runs_of_one_round_and_takes_the_median_round() -> None:
    # the second round was slow for both, which a ratio of the two medians would not see
    assert ratio([100, 20, 90], [50, 10, 60]) == 2
    with pytest.raises(ValueError, match="shorter"):
        ratio([1, 2], [1])


def test_a_fall_is_a_part_of_what_there_was_before_and_never_negative() -> None:
    assert fall(800, 760) == pytest.approx(0.05)
    assert fall(800, 900) == 0


def test_the_edges_are_the_medians_of_the_first_and_the_last_tenth_of_the_time() -> None:
    even = [(float(at), 1.0) for at in range(90)] + [(float(at), 3.0) for at in range(90, 101)]
    assert edges(even) == (1, 3)
    # it is the time that counts, not the samples: of these nearly all lie in the middle
    crowded = [(0.0, 1.0), *[(50.0, 7.0)] * 1_000, (100.0, 5.0)]
    assert edges(crowded) == (1, 5)
    with pytest.raises(ValueError, match="no sample"):
        edges([])


def test_a_rate_of_batches_leaves_out_the_batch_that_began_it() -> None:
    # batches of 1,000 each 0.1 s: the eleventh is committed one second after the first
    assert batch_rate(11_000, 1_000, 1.0) == 10_000
    with pytest.raises(ValueError, match="at once"):
        batch_rate(1_000, 1_000, 0.0)


def test_a_quantile_is_a_value_that_was_seen() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile(values, 1)) == (51, 100, 100)


def test_a_wait_runs_from_the_call_to_the_first_line_of_that_job() -> None:
    assert waits({1: 10.0, 2: 20.0}, {2: 20.001, 1: 10.003, 9: 0.0}) == pytest.approx([3, 1])
    with pytest.raises(RuntimeError, match="1 of 2"):
        waits({1: 10.0, 2: 20.0}, {1: 10.0})


def test_the_last_line_has_every_goal_also_one_that_is_missed_or_was_not_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = Report("x", "18.6")
    report.goal("fast", 2.0, ">=", 1.5)
    report.goal("even", 1.3, "<=", 1.2, "detail")
    report.unmeasured("limits", ">=", 0.8, "no such function")
    report.peer("other 1.0", 26_700.04)
    report.peer("third", None, "npm is not there")
    assert report.has("limits")
    assert not report.has("other")
    assert report.finish() is False
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(goal["name"], goal["value"], goal["met"]) for goal in line["goals"]] == [
        ("fast", 2.0, True),
        ("even", 1.3, False),
        ("limits", None, False),
    ]
    assert line["goals"][2]["detail"] == "not measured: no such function"
    assert line["peers"] == {"other 1.0": 26_700, "third": None}
    assert line["skipped"] == {"third": "npm is not there"}
