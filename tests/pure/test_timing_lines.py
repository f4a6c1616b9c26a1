"""How timings look on the command line: columns, histograms, sparklines, units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli import timing_lines as lines
from pipeline.core.sparkline import BLOCKS, PLAIN, sparkline
from pipeline.db.timing_view import Bucket, QueryRow, SeriesRow


def series(name: str, labels: dict[str, str] | None = None) -> SeriesRow:
    return SeriesRow(
        series=name, source="span", name=name, labels=labels or {}, count=12_840, total_ms=61_000.0, mean_ms=4.75,
        p50_ms=0.42, p95_ms=12.3, p99_ms=1_840.0, max_ms=4e6, errors=3, slow=0, rows=0, share=0.5, first_at=0.0,
    )  # fmt: skip


def query(text: str | None, fingerprint: str = "ab" * 8) -> QueryRow:
    return QueryRow(
        fingerprint=fingerprint, query=text, calls=5_000_000, total_ms=1e9, mean_ms=0.2, p50_ms=0.1, p95_ms=0.2,
        p99_ms=0.3, max_ms=9.0, errors=0, rows=7, share=None,
    )  # fmt: skip


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_table_fits_its_width_and_every_figure_has_its_unit(width: int) -> None:
    long = 'http{method="GET",route="/api/v1/customers/{id}/addresses/{other}/and/more",status="200"}'
    told = lines.top([series("orders.insert"), series(long)], width)
    assert max(map(len, (line for line in told if line != long))) <= width
    assert told[0].split() == ["series", "count", "total", "p50", "p95", "p99", "errors", "share"]
    assert " ".join(told[1].split()) == "orders.insert 12,840 1.0 min 0.42 ms 12.3 ms 1.84 s 3 50.0%"
    assert told[-1].split() == (told[1].split()[1:] if len(told) == 4 else [long, *told[1].split()[1:]])


def test_a_query_stands_above_its_text_cut_to_the_width() -> None:
    text = "select *\n  from orders\x1b[31m where note = $1 and " + "x" * 200
    told = lines.top([query(text), query(None), query(None, "other")], 80)
    assert told[1].split() == ["ab" * 8, "5.00M", "11.6", "d", "0.10", "ms", "0.20", "ms", "0.30", "ms", "0", "-"]
    assert told[2].startswith("  select * from orders?[31m where note = $1 and xxx")
    assert (len(told[2]), told[2][-4:]) == (80, "x...")
    assert told[4].strip() == "(the text is not known)"
    assert told[6].strip() == "all queries beyond the bound on series"


def test_a_histogram_shows_also_what_is_rare() -> None:
    told = lines.histogram([Bucket(0, 1, 1, 0.0001), Bucket(1, 2, 0, 0.0), Bucket(2, 5, 9_999, 0.9999)])
    assert [line.count("#") for line in told] == [1, 0, 30]
    assert told[2].split("  ")[0].split() == ["2.0", "ms", "-", "5.0", "ms"]
    assert lines.histogram([]) == []


def test_what_came_beyond_the_bound_is_known() -> None:
    assert lines.is_other(series("other"))
    assert lines.is_other(series('pay{other="true"}', labels={"other": "true"}))
    assert lines.is_other(query(None, "other"))
    assert not lines.is_other(series("another"))


def test_a_sparkline_draws_shares_of_the_greatest_and_leaves_gaps() -> None:
    assert sparkline([0, 1, 2, None, 8]) == "▁▂▃ █"
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([0, 8, None], blocks=False) == "_# "
    assert sparkline([]) == ""
    assert sparkline([None]) == " "


@given(st.lists(st.none() | st.floats(min_value=0, max_value=1e12), max_size=50))
def test_a_sparkline_has_one_character_for_each_value(values: list[float | None]) -> None:
    assert len(sparkline(values)) == len(values)
    assert set(sparkline(values)) <= {*BLOCKS, " "}
    assert set(sparkline(values, blocks=False)) <= {*PLAIN, " "}


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (None, "-"), (0.0, "0 ms"), (0.0021, "0.002 ms"), (0.42, "0.42 ms"), (4.56, "4.6 ms"), (99.96, "100 ms"),
        (122.4, "122 ms"), (999.6, "1.00 s"), (59_990, "59.99 s"), (60_000, "1.0 min"), (3.6e6, "1.0 h"),
        (1e12, "11,574.1 d"),
    ],
)  # fmt: skip
def test_durations_are_told_as_people_say_them(ms: float | None, text: str) -> None:
    assert lines.duration(ms) == text
