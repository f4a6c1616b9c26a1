"""Reports of drivers become timings by fingerprint, in bounded memory, whatever the reports are."""

from __future__ import annotations

import random
import string
import threading
from collections import Counter
from typing import Any

import pytest

from pipeline.app import query_observer
from pipeline.app.query_observer import LONG, QueryObserver
from pipeline.core.fingerprint import Fingerprint, fingerprint
from pipeline.core.observer import Span, error_name, rows_of
from pipeline.core.timing_context import labelled
from pipeline.core.window import Windows


@pytest.fixture
def windows() -> Windows:
    return Windows(lambda: 1_000_000.0)


@pytest.fixture
def observer(windows: Windows) -> QueryObserver:
    return QueryObserver(windows)


def told(
    observer: QueryObserver, text: Any, ms: float = 1.0, rows: int | None = 1, error: str | None = None
) -> None:
    observer.query(text, ms / 1000, rows=rows, error=error)


def counted(windows: Windows) -> dict[str, tuple[int, int, int]]:
    """Calls, rows and errors by series."""
    return {part.series.text: (part.digest.count, part.rows, part.errors) for part in windows.parts()}


def series(text: str, **labels: str) -> str:
    pairs = sorted({**labels, "fingerprint": fingerprint(text).hex}.items())
    return "query{" + ",".join(f'{key}="{value}"' for key, value in pairs) + "}"


def test_texts_that_differ_in_values_are_one_series_with_all_calls_rows_and_errors(
    observer: QueryObserver, windows: Windows
) -> None:
    told(observer, "select * from t where id = $1", rows=3)
    told(observer, "SELECT * FROM t WHERE id = 7 -- again", rows=4)
    told(observer, "select * from t where id = 8", rows=None, error="57014")
    told(observer, "select * from u where id = 8")
    assert counted(windows) == {
        series("select * from t where id = 1"): (3, 7, 1),
        series("select * from u where id = 1"): (1, 1, 0),
    }
    assert {part.series.source for part in windows.parts()} == {"query"}


def test_labels_around_a_query_are_its_labels(observer: QueryObserver, windows: Windows) -> None:
    for user in ("ann", "bob", "ann"):
        with labelled({"user": user}):
            told(observer, "select 1")
            with labelled({"endpoint": "/x"}):
                told(observer, "select 1")
                observer.transaction(0.1, error=None)
    told(observer, "select 1")
    assert counted(windows) == {
        series("select 1"): (1, 1, 0),
        series("select 1", user="ann"): (2, 2, 0),
        series("select 1", user="bob"): (1, 1, 0),
        series("select 1", user="ann", endpoint="/x"): (2, 2, 0),
        series("select 1", user="bob", endpoint="/x"): (1, 1, 0),
        'transaction{endpoint="/x",user="ann"}': (2, 0, 0),
        'transaction{endpoint="/x",user="bob"}': (1, 0, 0),
    }


def test_labels_that_become_known_later_are_on_what_comes_after(observer: QueryObserver, windows: Windows) -> None:
    known: list[dict[str, object]] = []
    with labelled({"user": "ann"}, late=lambda: known[0] if known else None):
        told(observer, "select 1")
        known.append({"endpoint": "/x"})
        told(observer, "select 1")
    assert counted(windows) == {
        series("select 1", user="ann"): (1, 1, 0),
        series("select 1", user="ann", endpoint="/x"): (1, 1, 0),
    }


def test_labels_that_only_look_alike_stay_apart(observer: QueryObserver, windows: Windows) -> None:
    for value in (1, True, "True", "1", 1.0):
        with labelled({"user": value}):
            told(observer, "select 1")
    assert sorted(name.split("user=")[1] for name in counted(windows)) == ['"1"}', '"1.0"}', '"True"}', '"true"}']


def test_a_random_run_agrees_with_a_plain_count(observer: QueryObserver, windows: Windows) -> None:
    rng = random.Random(5)
    ledger: dict[str, Counter[str]] = {}
    for _ in range(3_000):
        text = rng.choice(
            [
                f"select {rng.randrange(50)} from t{rng.randrange(3)} where a = 'it''s {rng.randrange(9)}'",
                f'select "col {rng.randrange(4)}" from t',
                f"-- don't\nselect a from t{rng.randrange(2)} where b = 'x{rng.randrange(9)}'",
                f"select $tag$ don't {rng.randrange(5)} $tag$, a{rng.randrange(3)} from t where b = 'c'",
                rf"select e'\'' or a{rng.randrange(3)} = 5 or b = '{rng.randrange(3)}'",
                f"insert into t values ({rng.random()}, {rng.randrange(9)}), (1, 2)",
                "".join(rng.choices(string.printable, k=6)),
            ]
        )
        rows, error = rng.choice([(None, "23505"), (rng.randrange(5), None)])
        ledger.setdefault(series(text), Counter()).update(calls=1, rows=rows or 0, errors=error is not None)
        told(observer, text, rows=rows, error=error)
    assert counted(windows) == {name: (one["calls"], one["rows"], one["errors"]) for name, one in ledger.items()}
    assert observer.faults_total == 0


def test_no_text_that_was_sent_is_kept(observer: QueryObserver) -> None:
    with labelled({"user": "ann"}):
        for n in range(50):
            told(observer, f"select * from person where name = 'secret{n}'", ms=5_000)
    told(observer, f"select 'secret', '{'secret' * LONG}")
    held = {name: value for name, value in vars(observer).items() if name not in ("windows", "_lock")}
    assert "secret" not in repr(held) + repr([vars(one) if hasattr(one, "__dict__") else one for one in held])
    assert "secret" not in repr(observer.take_texts())


def test_new_texts_are_handed_out_once_and_can_be_put_back(observer: QueryObserver) -> None:
    for n in range(5):
        told(observer, f"select {n}")
    told(observer, "select a")
    taken = observer.take_texts()
    assert [one.text for one in taken] == ["select $1", "select a"]
    assert observer.take_texts() == []
    told(observer, "select b")
    observer.restore_texts(taken)
    assert [one.text for one in observer.take_texts()] == ["select $1", "select a", "select b"]


def test_slow_queries_are_handed_on_and_a_hook_that_fails_hurts_nobody(
    observer: QueryObserver, windows: Windows
) -> None:
    slow: list[tuple[str, Fingerprint, float]] = []
    observer.slow = lambda text, found, ms: slow.append((text, found, ms))
    told(observer, "select 1", ms=999)
    told(observer, "select 2", ms=1_000)
    assert slow == [("select 2", fingerprint("select 2"), 1_000.0)]
    observer.slow = lambda *_told: 1 / 0
    told(observer, "select 3", ms=1_000)
    assert (observer.faults_total, counted(windows)[series("select 1")][0]) == (1, 3)


def test_memory_is_bounded_and_nothing_is_lost_by_it(
    observer: QueryObserver, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_observer, "MAX_TEXTS", 50)
    monkeypatch.setattr(query_observer, "MAX_NEW", 20)
    monkeypatch.setattr(query_observer, "MAX_LABELS", 4)
    for n in range(400):
        told(observer, f"select a{n}")
        told(observer, f"select b from t where c = '{n}'")
        with labelled({"user": n % 100}):
            told(observer, "select 1")
    assert len(observer._texts) <= 102  # with and without literals
    assert len(observer._plain) <= 50
    assert len(observer._labelled) <= 4
    assert len(observer._new) <= 20
    assert sum(len(lives) for lives in observer._by_labels.values()) <= 50
    assert observer.forgotten_total > 0
    calls = [part.digest.count for part in windows.parts()]
    assert sum(calls) == 1_200
    assert counted(windows)[series("select b from t where c = 1")] == (400, 400, 0)


@pytest.mark.parametrize("longer", [1, 2, 40])
def test_a_text_without_end_is_read_at_its_beginning_only(
    observer: QueryObserver, windows: Windows, longer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counting(text: str, *, cut: bool) -> Fingerprint:
        read.append(text)
        return fingerprint(text, cut=cut)

    monkeypatch.setattr(query_observer, "fingerprint", counting)
    for row in ("(1, 'a')", "(17, 'abc')"):
        told(observer, "insert into t values " + ", ".join([row] * (LONG * longer // len(row))))
    for number in (1, 123_456):
        told(observer, "select a from t where id in (" + ", ".join([str(number)] * (LONG * longer // 2)) + ")")
        told(observer, f"select a from t where id in ({', '.join([str(number)] * LONG)}, {longer})")
    assert sorted(calls for calls, _, _ in counted(windows).values()) == [2, 4]
    assert max(map(len, read)) <= LONG
    assert len(read) == 4  # the ends of long texts are not looked at
    assert {one.kind for one in observer.take_texts()} == {"truncated"}


@pytest.mark.parametrize("text", [None, 7, b"select 1", object(), ["select"], "\ud800", "", "\0", "'" * 1_000])
def test_whatever_is_told_nothing_is_raised(observer: QueryObserver, windows: Windows, text: Any) -> None:
    told(observer, text)
    observer.query("select 1", float("nan"), rows=None, error=None)
    observer.query("select 1", -1.0, rows=1, error=None)
    observer.query("select 1", 0.1, rows="many", error=None)  # type: ignore[arg-type]
    assert observer.faults_total + sum(part.digest.count for part in windows.parts()) >= 1
    assert windows.rejected_total == 3


def test_faults_and_refusals_are_counted_and_say_no_text(
    observer: QueryObserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_observer, "fingerprint", lambda text: 1 / 0)
    for _ in range(3):
        told(observer, "select 'secret'")
    assert observer.faults_total == 3
    observer.refused("asyncpg 9", "its protocol has no query")
    observer.refused("asyncpg 9", "again")
    assert observer.refusals == {"asyncpg 9": "its protocol has no query"}


def test_many_threads_lose_nothing(observer: QueryObserver, windows: Windows) -> None:
    def work(n: int) -> None:
        with labelled({"worker": n % 2}):
            for turn in range(500):
                told(observer, f"select a{turn % 40}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(part.digest.count for part in windows.parts()) == 3_000
    assert observer.faults_total == 0


def test_a_forked_process_begins_anew(observer: QueryObserver) -> None:
    told(observer, "select 1")
    observer.reset()
    assert observer.take_texts() == []
    assert observer._plain == {}


@pytest.mark.parametrize(
    ("tag", "rows"),
    [
        ("INSERT 0 5", 5),
        (b"SELECT 12", 12),
        ("BEGIN", 0),
        ("CREATE TABLE", 0),
        ("COPY 3", 3),
        ("", None),
        (None, None),
    ],
)
def test_the_rows_are_in_the_tag(tag: str | bytes, rows: int | None) -> None:
    assert rows_of(tag) == rows


def test_an_error_is_named_by_its_sqlstate_or_its_class() -> None:
    class Server(Exception):
        sqlstate = "23505"

    class Odd(Exception):
        sqlstate = "its message"

    assert [error_name(one) for one in (Server(), Odd(), TimeoutError("a secret"))] == [
        "23505",
        "Odd",
        "TimeoutError",
    ]


def test_a_transaction_lasts_from_before_its_begin_until_after_its_end(observer: QueryObserver) -> None:
    heard: list[tuple[float, str | None]] = []
    observer.transaction = lambda seconds, *, error: heard.append((seconds, error))  # type: ignore[method-assign]
    span = Span(observer)
    assert not span.after(False, 1.0, 2.0)
    assert not span.after(True, 2.0, 3.0)
    assert not span.after(True, 3.0, 4.0, error="23505")
    assert span.after(False, 4.0, 6.0)
    span.after(True, 10.0, 11.0)
    span.after(True, 11.0, 12.0, error="23505")  # undone by ROLLBACK TO
    span.after(False, 12.0, 13.0, committed=True)
    assert heard == [(4.0, "23505"), (3.0, None)]
