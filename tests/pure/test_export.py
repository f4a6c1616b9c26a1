"""What may be asked of an export, and how each value is spelled."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.export import Column, check_last, path_parts, request
from pipeline.core.export_format import CsvEncoder, NdjsonEncoder, iso_time, one_line
from pipeline.errors import TaskError

TEXT = st.one_of(st.none(), st.text(), st.text(alphabet='",\r\n=+-@ a\t'))
ROWS = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.tuples(*[TEXT.filter(lambda t: t is None or "\0" not in t)] * width), max_size=8)
)


def asked(path: str = "a.csv", **more: Any) -> Any:
    options = {"format": None, "compression": None, "batch": 10, "order_by": None, "spreadsheet_safe": False}
    return request(path, **{**options, **more})


def texts(width: int) -> list[Column]:
    return [Column(f"c{n}", "text") for n in range(width)]


def parsed(data: str) -> list[list[str | None]]:
    """CSV read the slow way, with null and the empty text told apart."""
    rows: list[list[str | None]] = []
    row: list[str | None] = []
    place = 0
    while place < len(data):
        if data[place] == '"':
            cell = ""
            place += 1
            while True:
                end = data.index('"', place)
                cell += data[place:end]
                place = end + 1
                if data[place : place + 1] != '"':
                    break
                cell += '"'
                place += 1
            row.append(cell)
        else:
            end = min(at for at in (data.find(",", place), data.find("\r\n", place)) if at >= 0)
            row.append(data[place:end] or None)
            place = end
        if data[place] == ",":
            place += 1
            if data.startswith("\r\n", place):  # the last cell is null
                row.append(None)
        if data.startswith("\r\n", place):
            rows.append(row)
            row = []
            place += 2
    return rows


@given(ROWS)
def test_csv_gives_back_every_text_and_tells_null_from_empty(rows: list[tuple[str | None, ...]]) -> None:
    data = CsvEncoder(texts(len(rows[0]) if rows else 1)).rows(rows).decode()
    assert parsed(data) == [list(row) for row in rows]
    if rows and len(rows[0]) > 1:
        usual = list(csv.reader(io.StringIO(data, newline=""), strict=True))
        assert usual == [[cell or "" for cell in row] for row in rows]


@given(ROWS)
def test_a_safe_cell_never_begins_as_a_formula_and_loses_nothing(rows: list[tuple[str | None, ...]]) -> None:
    data = CsvEncoder(texts(len(rows[0]) if rows else 1), spreadsheet_safe=True).rows(rows).decode()
    for wrote, row in zip(parsed(data), rows, strict=True):
        for cell, value in zip(wrote, row, strict=True):
            assert cell is None or not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
            assert cell in (value, f"'{value}")


def test_a_negative_number_is_no_formula() -> None:
    columns = [Column("i", "int"), Column("n", "numeric"), Column("f", "float"), Column("=t", "text")]
    encoder = CsvEncoder(columns, spreadsheet_safe=True)
    assert encoder.header() + encoder.rows([(-1, "-2.50", -0.5, "-x")]) == b"i,n,f,'=t\r\n-1,-2.50,-0.5,'-x\r\n"


@given(st.lists(st.tuples(TEXT, st.floats(), st.binary(), st.none() | st.integers(-(2**63), 2**63 - 1))))
def test_ndjson_gives_back_every_value(rows: list[Any]) -> None:
    columns = [Column("t", "text"), Column("f", "float"), Column("b", "bytes"), Column("i", "int")]
    data = NdjsonEncoder(columns).rows(rows).decode()
    lines = data.split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(rows)
    for line, (text, number, binary, whole) in zip(lines, rows, strict=True):
        read = json.loads(line)
        assert (read["t"], read["i"]) == (text, whole)
        assert read["f"] == number if math.isfinite(number) else read["f"] in ("NaN", "Infinity", "-Infinity")
        assert CsvEncoder([Column("b", "bytes")]).rows([(binary,)]).decode().strip('\r\n"') == read["b"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(), lambda one: st.lists(one) | st.dictionaries(st.text(), one)
    )
)
def test_json_on_many_lines_becomes_the_same_json_on_one(value: Any) -> None:
    line = one_line(json.dumps(value, indent=2).replace("\n", "\r\n"))
    assert "\n" not in line
    assert json.loads(line) == value


@pytest.mark.parametrize(
    ("spelled", "iso"),
    [
        ("2024-02-29 12:00:00.123456+00", "2024-02-29T12:00:00.123456Z"),
        ("0044-03-15 00:00:00+00 BC", "0044-03-15T00:00:00Z BC"),
        ("infinity", "infinity"),
        ("-infinity", "-infinity"),
    ],
)
def test_times_are_iso_8601_in_utc(spelled: str, iso: str) -> None:
    assert iso_time(spelled) == iso


@pytest.mark.parametrize(
    ("path", "format", "zipped"),
    [
        ("a.csv", "csv", False),
        ("a/b.csv.gz", "csv", True),
        ("a.ndjson", "ndjson", False),
        ("a.jsonl.gz", "ndjson", True),
        ("a.parquet", "parquet", False),
    ],
)
def test_the_ending_names_the_format(path: str, format: str, zipped: bool) -> None:
    assert (asked(path).format, asked(path).gzip) == (format, zipped)


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("a.txt", {}),
        ("a.csv", {"format": "xlsx"}),
        ("a.csv", {"compression": "zip"}),
        ("a.parquet", {"compression": "gzip"}),
        ("a.ndjson", {"spreadsheet_safe": True}),
        ("a.csv", {"batch": 0}),
        ("a.csv", {"batch": True}),
        ("a.csv", {"batch": "many"}),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(path: str, more: dict[str, Any]) -> None:
    with pytest.raises(TaskError):
        asked(path, **more)


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "/etc/a.csv", "../a.csv", "a/../../b.csv", "a/./b.csv", "a//b.csv", "a/", ".a.csv", ".ssh/a.csv",
        "a\0.csv", "a\n.csv", "..\\a.csv", "a.csv.part", None, 7,
    ],
)  # fmt: skip
def test_a_path_that_could_lead_elsewhere_is_refused(path: Any) -> None:
    with pytest.raises(TaskError, match="cannot be written to"):
        path_parts(path)


@pytest.mark.parametrize(("keys", "what"), [([1, None], "null"), ([1, 1], "twice"), ([3], "twice")])
def test_a_column_that_cannot_order_is_noticed(keys: list[Any], what: str) -> None:
    with pytest.raises(TaskError, match=what):
        check_last([(key,) for key in keys], 0, 3 if keys == [3] else None, "id")
