"""Exports: what lands in the file."""

from __future__ import annotations

import asyncio
import base64
import gc
import gzip
import hashlib
import json
from datetime import UTC, date, datetime
from pathlib import Path

import asyncpg
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.export import Exporter
from pipeline.core.job import Job
from pipeline.db.export import ExportStore
from pipeline.errors import TaskError
from tests.flow.export_kit import NUMBERS, run
from tests.host_kit import MemoryHost, job

SCALARS: dict[str, list[str]] = {
    "int2": ["-32768"],
    "int8": ["9223372036854775807"],
    "oid": ["4294967295"],
    "float4": ["0.1", "NaN", "-Infinity", "1e-40"],
    "float8": ["0.1", "-0", "Infinity", "5e-324", "1.7976931348623157e308"],
    "numeric": ["123456789012345678901234567890.000100", "NaN", "Infinity", "-0.10"],
    "bool": ["true", "false"],
    "text": ["", "a,b", 'a"b', "a\r\nb", " x ", "\\N", "NULL", "ünï 💶", "\\."],
    "varchar": ["x"],
    "char(5)": ["x"],
    "uuid": ["3f333df6-90a4-4fda-8dd3-9485d27cee36"],
    "date": ["2024-02-29", "infinity", "0044-03-15 BC", "12024-01-01"],
    "time": ["24:00:00", "01:02:03.000004"],
    "timetz": ["01:02:03+05:30"],
    "timestamp": ["2024-02-29 23:59:59.999999", "-infinity", "294276-12-31 23:59:59"],
    "timestamptz": ["2024-02-29 23:59:59.999999+05:30", "infinity", "0044-03-15 0:0+00 BC", "12024-1-1 0:0+00"],
    "interval": ["1 year 2 mons 3 days 04:05:06.789", "-1 mons +1 day", "0"],
    "inet": ["::1/64"],
    "macaddr": ["08:00:2b:01:02:03"],
    "bit varying": ["10101"],
    "int4range": ["[1,5)", "empty"],
    "int4multirange": ["{[1,2),[5,7)}"],
    "point": ["(1.5,-2)"],
    "tsvector": ["'a':1 'b':2"],
    "money": ["-1.50"],
    "jsonb": ['{"a": [1.10, null, "x,\\"y\\""]}'],
    "mood": ["sad, or so"],
    "positive": ["7"],
}  # fmt: skip
TYPES = """
    create type mood as enum ('happy', 'sad, or so');
    create domain positive as int check (value > 0);
"""


async def test_csv_of_every_type_is_read_back_by_postgres_without_a_difference(
    sql: asyncpg.Connection, exporter: Exporter, folder: Path
) -> None:
    columns = [f"c{n}" for n in range(len(SCALARS))]
    await sql.execute(TYPES)
    kinds = ", ".join(f"{c} {kind}" for c, kind in zip(columns, SCALARS, strict=True))
    await sql.execute(f"create table given (id int primary key, {kinds})")
    await sql.execute("create table back (like given)")
    await sql.execute("insert into given values (0)")
    depth = max(map(len, SCALARS.values()))
    for row in range(depth):
        values = ["'" + v[row % len(v)].replace("'", "''") + "'" for v in SCALARS.values()]
        await sql.execute(f"insert into given values ({row + 1}, {', '.join(values)})")
    done = await run(exporter, "given.csv", table="given")
    assert done.rows == depth + 1
    await sql.copy_to_table("back", source=str(folder / "given.csv"), format="csv", header=True)
    as_text = "select array_agg(t::text order by id) from {} t"
    assert await sql.fetchval(as_text.format("back")) == await sql.fetchval(as_text.format("given"))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.text(st.characters(exclude_characters="\0", codec="utf-8")) | st.none(), min_size=1, max_size=5
    )
)
def test_any_text_survives_csv_and_ndjson(rows: list[str | None], dsn: str, folder: Path) -> None:
    async def there_and_back() -> None:
        exporter = Exporter(ExportStore(dsn), {}, directory=folder, queries=True)
        query = "select o::int as id, t from unnest($1::text[]) with ordinality u (t, o)"
        await run(exporter, "t.ndjson", query, params=[rows], order_by="id")
        lines = (folder / "t.ndjson").read_text(encoding="utf-8").split("\n")[:-1]
        assert [json.loads(line)["t"] for line in lines] == rows
        await run(exporter, "t.csv", query, params=[rows], order_by="id")
        sql = await asyncpg.connect(dsn)
        await sql.execute("create temp table back (id int, t text)")
        await sql.copy_to_table("back", source=str(folder / "t.csv"), format="csv", header=True)
        assert [row["t"] for row in await sql.fetch("select t from back order by id")] == rows
        await sql.close()

    asyncio.run(there_and_back())


async def test_ndjson_keeps_numbers_exactly_and_nests_what_is_nested(exporter: Exporter, folder: Path) -> None:
    await run(
        exporter,
        "a.ndjson",
        r"""
        select 0.10::numeric as n, 0.1::float4 as f, 'NaN'::float8 as nan, '\x00ff'::bytea as b, null as nothing,
            array[1, null, 3] as a, array[array['x'], array['y']] as aa, row(1, 'x') as r, '' as empty,
            '{"k":
              [1.10]}'::json as j, timestamptz '2024-01-01 01:00+01' as at, date '2024-01-01' as day, true as yes
        """,
    )
    line = (folder / "a.ndjson").read_text()
    assert line.count("\n") == 1
    assert "[1.10]" in line
    assert json.loads(line) == {
        "n": "0.10", "f": 0.1, "nan": "NaN", "b": base64.b64encode(b"\0\xff").decode(), "nothing": None,
        "a": [1, None, 3], "aa": [["x"], ["y"]], "r": {"f1": 1, "f2": "x"}, "empty": "", "j": {"k": [1.1]},
        "at": "2024-01-01T00:00:00Z", "day": "2024-01-01", "yes": True,
    }  # fmt: skip


async def test_parquet_has_arrows_types_and_a_row_group_for_each_batch(exporter: Exporter, folder: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    query = r"""
        select i::int8 as i, i / 2.0::float8 as f, i % 2 = 0 as b, '\x01'::bytea as x, null::text as t,
            i::numeric / 3 as n, date '2024-01-01' + i as d, timestamptz '2024-01-01 00:00:00.000001+00' as at,
            timestamp '2024-01-01' as local, array[i] as a
        from generate_series(1, 25) i
    """
    done = await run(exporter, "a.parquet", query, batch=10)
    file = parquet.ParquetFile(folder / "a.parquet")
    assert (done.rows, file.metadata.num_rows, file.metadata.num_row_groups) == (25, 25, 3)
    last = file.read().to_pylist()[-1]
    assert last == {
        "i": 25, "f": 12.5, "b": False, "x": b"\x01", "t": None, "n": "8.3333333333333333", "d": date(2024, 1, 26),
        "at": datetime(2024, 1, 1, microsecond=1, tzinfo=UTC), "local": datetime(2024, 1, 1), "a": "[25]",
    }  # fmt: skip
    with pytest.raises(TaskError, match="does not fit Parquet"):
        await run(exporter, "b.parquet", "select 'infinity'::timestamptz as at")
    gc.collect()  # what the library still holds must not reach for a file that is closed
    assert sorted(p.name for p in folder.iterdir()) == ["a.parquet"]


async def test_parquet_without_pyarrow_says_so_before_anything_is_written(
    exporter: Exporter, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(TaskError, match="pyarrow, which is not installed"):
        await run(exporter, "a.parquet", NUMBERS)
    assert list(folder.iterdir()) == []


async def test_params_are_read_by_postgres_as_the_types_that_the_query_gives_them(
    exporter: Exporter, folder: Path
) -> None:
    query = """
        select $1::date as d, $2::numeric as n, $3::timestamptz as at, $4::int as i, $5::text as t, $6::jsonb as j,
            $7::int[] as a, $8::date[] as days, $9::uuid as u, $10::interval as v, $11::numeric as m
    """
    params = [
        "2024-01-01", "0.10", "2024-01-01T01:00:00+01:00", 7, "x", {"k": [1]}, [1, 2], ["2024-01-01"],
        "3f333df6-90a4-4fda-8dd3-9485d27cee36", "1 month", 1.5,
    ]  # fmt: skip
    await run(exporter, "a.ndjson", query, params=params)
    read = json.loads((folder / "a.ndjson").read_text())
    assert list(read.values()) == [
        "2024-01-01", "0.10", "2024-01-01T00:00:00Z", 7, "x", {"k": [1]}, [1, 2], ["2024-01-01"],
        "3f333df6-90a4-4fda-8dd3-9485d27cee36", "P1M", "1.5",
    ]  # fmt: skip


async def test_the_result_describes_the_file(exporter: Exporter, folder: Path) -> None:
    host = MemoryHost()
    (folder / "day").mkdir()
    done = await exporter.export(job(host), "day/a.csv.gz", query=NUMBERS, batch=300)
    data = (folder / "day" / "a.csv.gz").read_bytes()
    assert (done.bytes, done.sha256, done.rows) == (len(data), hashlib.sha256(data).hexdigest(), 1000)
    assert (done.path, done.snapshots) == ("day/a.csv.gz", 1)
    assert data[4:8] == bytes(4)  # no time in it, so that the same rows give the same bytes
    text = gzip.decompress(data).decode()
    assert text.startswith("id,name\r\n1,row 1\r\n")
    assert text.endswith("1000,row 1000\r\n")
    assert [report[0] for report in host.reports] == [300, 600, 900, 1000, 1000]
    assert all(total is None and "guess" in note for _, total, note in host.reports[:-1])
    assert host.reports[-1][:2] == (1000, 1000)
    assert (folder / "day" / "a.csv.gz").stat().st_mode & 0o007 == 0


async def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(exporter: Exporter, folder: Path) -> None:
    (folder / "a.csv").write_text("old")
    host, seen = MemoryHost(), set()
    host.on_progress = lambda _done: seen.add((folder / "a.csv").read_text())
    await exporter.export(job(host), "a.csv", query=NUMBERS, batch=100)
    assert seen == {"old"}
    assert (folder / "a.csv").read_text().count("\n") == 1001
    assert [p.name for p in folder.iterdir()] == ["a.csv"]


async def test_an_empty_result_is_a_whole_file(exporter: Exporter, folder: Path) -> None:
    done = await run(exporter, "a.csv", "select 1 as a, 2 as b where false")
    assert (done.rows, (folder / "a.csv").read_bytes()) == (0, b"a,b\r\n")


async def test_all_rows_are_of_one_moment(sql: asyncpg.Connection, exporter: Exporter, folder: Path) -> None:
    await sql.execute(
        """
        create table t as select generate_series(1, 100) as id;
        create function counted() returns int language plpgsql as 'begin return (select count(*) from t); end';
        """
    )
    host = MemoryHost()

    async def until_changed(job_: Job, done: float, total: float | None, note: str) -> None:
        if done == 10:
            await sql.execute("delete from t where id > 50")

    host.progress = until_changed  # type: ignore[method-assign]
    await exporter.export(job(host), "a.csv", query="select id, counted() as n from t", batch=10)
    lines = (folder / "a.csv").read_text().split()
    assert lines == ["id,n", *(f"{n},100" for n in range(1, 101))]


@pytest.mark.slow
async def test_memory_does_not_grow_with_the_number_of_rows(exporter: Exporter) -> None:
    process, host = psutil.Process(), MemoryHost()
    peaks = [0]
    host.on_progress = lambda _done: peaks.append(process.memory_info().rss)
    query = "select i as id, md5(i::text) as a, i * 1.5 as n, now() as at from generate_series(1, {}) i"
    await exporter.export(job(host), "warm.csv.gz", query=query.format(20_000))
    gc.collect()
    before = process.memory_info().rss
    done = await exporter.export(job(host), "big.csv.gz", query=query.format(200_000))
    assert done.rows == 200_000
    assert max(peaks) - before < 30 * 2**20
