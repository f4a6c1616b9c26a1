"""What looks at sessions add up to, and how often there is one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pipeline
from pipeline.core.activity import KEPT, OTHER, Minute, Sample, pause

ROOT = Path(pipeline.__file__).parents[1]


def sample(**waits: int) -> Sample:
    return Sample(tuple(((7, kind, "x"), number) for kind, number in waits.items()), 9, 0, 2, 3.0, None)


def test_looks_of_a_minute_add_up() -> None:
    minute = Minute(600)
    minute.add(sample(Lock=2, IO=1))
    minute.add(Sample((((7, "Lock", "x"), 3),), 9, 1, None, 5.0, 4.0))
    assert (minute.samples, minute.active, minute.blocked_most) == (2, 6, 2)
    assert (minute.longest_transaction_seconds, minute.longest_idle_seconds) == (5.0, 4.0)
    assert minute.waits == {(7, "Lock", "x"): 5, (7, "IO", "x"): 1}


def test_what_nobody_knows_stays_unknown() -> None:
    minute = Minute(600)
    minute.add(Sample((), 1, 1, None, None, None))
    assert (minute.longest_transaction_seconds, minute.longest_idle_seconds) == (None, None)


def test_kinds_beyond_the_bound_are_counted_together_and_none_is_lost() -> None:
    minute = Minute(600)
    for number in range(KEPT + 50):
        minute.add(Sample((((number, "Lock", "x"), 2),), 9, 0, 0, 0.0, 0.0))
    minute.add(Sample((((0, "Lock", "x"), 1),), 9, 0, 0, 0.0, 0.0))  # one that is kept
    assert len(minute.waits) == KEPT + 1
    assert minute.waits[OTHER] == 100
    assert sum(minute.waits.values()) == minute.active == (KEPT + 50) * 2 + 1


@pytest.mark.parametrize(
    ("took", "seconds"),
    [(0.0, 1.0), (0.01, 0.99), (0.02, 1.0), (0.1, 5.0), (0.5, 25.0), (0.51, 60.0), (9.0, 60.0)],
)
def test_looks_take_a_fiftieth_of_the_time_at_most(took: float, seconds: float) -> None:
    assert pause(took) == pytest.approx(seconds)
    assert took / (took + pause(took)) <= 0.021 or took > 0.5


def test_nothing_that_looks_at_sessions_knows_of_timings() -> None:
    timings = ("window", "digest", "latency", "timing", "observer", "series")
    for name in ("handlers/activity.py", "pipeline/core/activity.py", "pipeline/db/activity.py"):
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom | ast.Import):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                assert not [one for one in names for word in timings if word in one], name
