"""The judge of the freshness check finds each kind of broken promise, and nothing where none is broken."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from bench.freshness_judge import Judge
from bench.freshness_log import (
    ABORTED,
    ABSENT,
    COMMITTED,
    UNKNOWN,
    Log,
    Note,
    Own,
    Run,
    Torn,
    Write,
    raised,
    records,
    token,
    told,
)

BOUND = 1_000
KEY = 7
V1, V2, V3 = (n << 24 | n for n in (1, 2, 3))
WRITES = [
    Write(COMMITTED, KEY, V1, 0, 0),
    Write(COMMITTED, KEY, V2, 1_000, 1_100),
    Write(COMMITTED, KEY, V3, 5_000, 5_100),
]


def read(version: int, invoke: int, returned: int | None = None, *, view: int = 0, count: int = 1) -> Run:
    returned = invoke + 10 if returned is None else returned
    return Run(view, KEY, version, invoke, returned, invoke, count, 0)


def broken(*history: Run | Own | Torn, writes: list[Write] = WRITES) -> dict[str, int]:
    judge = Judge(writes, BOUND)
    judge.process("reader", history)
    return dict(judge.broken)


def test_reads_within_the_bound_in_their_order_break_nothing() -> None:
    history = [read(V1, 500), read(V1, 2_100), read(V2, 2_200), read(V2, 6_100), read(V3, 6_101), read(V3, 90_000)]
    assert broken(*history) == {}


def test_a_read_is_stale_once_a_newer_version_was_acknowledged_longer_ago_than_the_bound() -> None:
    assert broken(read(V1, 2_100)) == {}
    assert broken(read(V1, 2_101)) == {"stale": 1}
    assert broken(read(V1, 90_000)) == {"stale": 1}
    assert broken(read(V2, 6_101)) == {"stale": 1}


def test_a_write_without_an_answer_is_due_for_nobody_and_may_be_read() -> None:
    writes = [*WRITES[:2], WRITES[2]._replace(outcome=UNKNOWN)]
    assert broken(read(V2, 90_000), writes=writes) == {}
    assert broken(read(V3, 90_000), writes=writes) == {}
    both = [*writes, WRITES[2]]  # noted before the commit, and once more after the answer
    assert broken(read(V2, 90_000), writes=both) == {"stale": 1}


def test_what_nobody_wrote_what_was_rolled_back_and_what_comes_later_is_invented() -> None:
    assert broken(read(V2 + (9 << 24), 2_000)) == {"invented": 1}
    assert broken(read(ABSENT, 500)) == {"invented": 1}
    rolled_back = [*WRITES, Write(ABORTED, KEY, 4 << 24, 5_200, 5_300)]
    assert broken(read(4 << 24, 5_400), writes=rolled_back) == {"invented": 1}
    assert broken(read(V3, 4_000, 4_999)) == {"invented": 1}
    assert broken(read(V3, 4_000, 5_050)) == {}, "committed, and its answer under way"


def test_going_back_counts_only_between_reads_of_which_one_ended_before_the_other_began() -> None:
    assert broken(read(V2, 1_200, 1_300), read(V1, 1_301, 1_400)) == {"backwards": 1}
    assert broken(read(V2, 1_200, 1_300), read(V1, 1_299, 1_400)) == {}, "at the same time"
    assert broken(read(V2, 1_200, 1_300), read(V1, 1_400, 1_500, view=1)) == {}, "another view"
    back_and_forth = [read(V3, 5_110), read(V2, 5_200), read(V3, 5_300), read(V2, 5_400)]
    assert broken(*back_and_forth) == {"backwards": 2}


def test_going_back_is_seen_from_the_last_read_of_a_run_to_the_first_of_an_earlier_one() -> None:
    first = Run(0, KEY, V3, 9_000, 5_300, 5_200, 100, 0)
    second = Run(0, KEY, V2, 5_301, 9_100, 5_250, 2, 0)
    assert broken(first, second) == {"backwards": 1}
    assert broken(first, second._replace(last_invoke=5_300)) == {}


def test_two_processes_may_see_versions_in_different_orders() -> None:
    judge = Judge(WRITES, BOUND)
    judge.process("one", [read(V2, 1_200)])
    judge.process("other", [read(V1, 1_300)])
    assert not judge.broken
    assert judge.reads == 2


def test_own_writes_are_seen_from_their_answer_on() -> None:
    own = Own(KEY, V2, 1_100)
    assert broken(own, read(V1, 1_100)) == {}
    assert broken(own, read(V1, 1_101)) == {"own": 1}
    assert broken(own, read(V3, 5_100)) == {}
    assert broken(read(V1, 1_500), own) == {"own": 1}, "whatever the order of the records"
    later = Own(KEY, V1, 1_400)  # told late: the newer one still counts
    assert broken(own, later, read(V1, 1_500)) == {"own": 1}


def test_torn_pairs_are_counted() -> None:
    assert broken(Torn(8, KEY, V1, V2, 1_200, 1_210)) == {"torn": 1}


def test_how_far_reads_are_behind() -> None:
    judge = Judge([Write(COMMITTED, KEY, V1, 0, 0), Write(COMMITTED, KEY, V2, 0, 1_000_000_000)], 10**10)
    judge.process("reader", [Run(0, KEY, V1, 2_000_000_000, 1, 0, 100, 0)])
    assert judge.worst == pytest.approx(1.0)
    assert judge.quantile(0.4) == 0.0, "half of its reads came before the newer version"
    assert 0.1 < judge.quantile(0.75) < 0.9
    assert judge.quantile(0.999) > 0.8
    judge.process("reader", [Run(0, KEY, V2, 3_000_000_000, 2_000_000_001, 2_000_000_001, 900, 0)])
    assert judge.quantile(0.9) == 0.0
    assert judge.worst == pytest.approx(1.0)


def test_a_violation_tells_what_was_written_around_it() -> None:
    judge = Judge(WRITES, BOUND)
    judge.process("reader 3", [read(V1, 3_000)])
    [violation] = judge.violations
    assert (violation.rule, violation.process, violation.key, violation.at) == ("stale", "reader 3", KEY, 3_000)
    assert "returned 1 (by 1): 2 (by 2) was due" in violation.text
    assert any("committed 2 (by 2)" in line for line in judge.history(violation))


def test_versions_grow_and_name_their_transaction() -> None:
    version = raised(raised(0, 5), 6)
    assert version >> 24 == 2
    assert token(version) == 6
    assert raised(version, 1) > version
    assert told(version) == "2 (by 6)"


def test_what_is_written_down_is_read_again_and_equal_reads_are_one_run(tmp_path: Path) -> None:
    path = tmp_path / "reader.bin"
    log = Log(path)
    log.read(1, KEY, V1, 100, 110, loaded=True, count=1)
    log.read(1, KEY, V1, 105, 108, loaded=False, count=1)
    log.read(1, KEY, V1, 102, 120, loaded=False, count=1)
    log.read(1, KEY, V2, 130, 140, loaded=False, count=1)
    log.read(2, KEY, V1, 131, 141, loaded=False, count=0)
    log.own(Own(KEY, V2, 125))
    log.torn(Torn(8, KEY, V1, V2, 1, 2))
    log.wrote(Write(UNKNOWN, 10_003, V3, 1, 2, 4))
    log.note("error busy", 2)
    log.flush(force=True)
    log.read(1, KEY, V2, 150, 160, loaded=False, count=1)
    log.close()
    expected = [
        Run(1, KEY, V1, 105, 110, 100, 3, 1),
        Own(KEY, V2, 125),
        Torn(8, KEY, V1, V2, 1, 2),
        Write(UNKNOWN, 10_003, V3, 1, 2, 4),
        Run(1, KEY, V2, 130, 140, 130, 1, 0),
        Run(2, KEY, V1, 131, 141, 131, 0, 0),
        Run(1, KEY, V2, 150, 160, 150, 1, 0),
        Note("error busy", 2),
    ]
    assert list(records(path)) == expected
    path.write_bytes(path.read_bytes()[:-3])  # killed while it wrote
    assert list(records(path)) == [record for record in expected if record != expected[-2]]


def test_a_cache_that_keeps_its_promise_is_never_blamed_and_one_that_lags_always() -> None:
    """A random history, simulated: writes of one key, and reads of a copy that is a fixed time behind."""
    for seed in range(20):
        rng = Random(seed)
        writes, at = [Write(COMMITTED, KEY, 1 << 24, 0, 0)], 0
        for n in range(2, 60):
            began = at + rng.randrange(1, 300)
            at = began + rng.randrange(1, 50)
            writes.append(Write(COMMITTED, KEY, n << 24, began, at))
        for behind in (rng.randrange(BOUND - 100), BOUND + 400):
            runs = []
            for invoke in range(5_000, at, 37):
                seen = max(write.version for write in writes if write.acked <= invoke - behind)
                runs.append(Run(0, KEY, seen, invoke, invoke + 5, invoke, 1, 0))
            found = broken(*runs, writes=writes)
            assert found.keys() == ({"stale"} if behind > BOUND else set()), (seed, behind, found)
