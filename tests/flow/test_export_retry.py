"""Exports that fail in the middle, and what the next attempt makes of it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from handlers import export_files
from handlers.export import Exporter
from handlers.export_files import PartFile
from pipeline.errors import Busy, TaskError
from tests.flow.export_kit import NUMBERS, run
from tests.host_kit import MemoryHost, job


class Killed(Exception):
    pass


def killing(after: float) -> MemoryHost:
    host = MemoryHost()

    def kill(done: float) -> None:
        if done >= after:
            raise Killed

    host.on_progress = kill
    return host


@pytest.mark.parametrize("path", ["a.csv", "a.csv.gz", "a.ndjson"])
async def test_a_retry_goes_on_and_the_file_is_the_same_byte_for_byte(
    exporter: Exporter, folder: Path, path: str
) -> None:
    options: dict[str, Any] = {"query": NUMBERS, "order_by": "id", "batch": 100}
    whole = await exporter.export(job(MemoryHost()), f"whole.{path}", **options)
    host = killing(350)
    with pytest.raises(Killed):
        await exporter.export(job(host), path, **options)
    part = folder / f"{path}.part"
    assert not (folder / path).exists()
    with part.open("ab") as torn:
        torn.write(b"rows that were never saved" * 10_000)
    host.on_progress = lambda _done: None
    host.reports.clear()
    done = await exporter.export(job(host, attempt=2), path, **options)
    assert host.reports[0][0] == 500
    assert (folder / path).read_bytes() == (folder / f"whole.{path}").read_bytes()
    assert (done.rows, done.sha256, done.bytes) == (whole.rows, whole.sha256, whole.bytes)
    assert (whole.snapshots, done.snapshots) == (1, 2)
    assert not part.exists()


@pytest.mark.parametrize("key", ["t", "at", "n", "f", "u"])
async def test_a_retry_goes_on_behind_a_key_of_any_type(exporter: Exporter, folder: Path, key: str) -> None:
    query = """
        select 'k ' || chr(65 + i % 26) || i as t, timestamptz '2024-01-01' + i * interval '1 us' as at,
            i / 7::numeric as n, i / 7::float8 as f, md5(i::text)::uuid as u
        from generate_series(1, 100) i
    """
    options: dict[str, Any] = {"query": query, "order_by": key, "batch": 10}
    await exporter.export(job(MemoryHost()), "whole.csv", **options)
    host = killing(50)
    with pytest.raises(Killed):
        await exporter.export(job(host), "a.csv", **options)
    host.on_progress = lambda _done: None
    assert (await exporter.export(job(host), "a.csv", **options)).snapshots == 2
    assert (folder / "a.csv").read_bytes() == (folder / "whole.csv").read_bytes()


@pytest.mark.parametrize("spoiled", ["gone", "shorter", "changed", "columns", "nonsense"])
async def test_a_retry_starts_anew_when_what_was_saved_is_not_there(
    exporter: Exporter, folder: Path, spoiled: str
) -> None:
    options: dict[str, Any] = {"query": NUMBERS, "order_by": "id", "batch": 100}
    host = killing(350)
    with pytest.raises(Killed):
        await exporter.export(job(host), "a.csv", **options)
    part = folder / "a.csv.part"
    if spoiled == "gone":
        part.unlink()
    elif spoiled == "shorter":
        os.truncate(part, 100)
    elif spoiled == "changed":
        part.write_bytes(part.read_bytes().replace(b"row 7\r", b"row 8\r"))
    elif spoiled == "columns":
        options["query"] = NUMBERS.replace("name", "title")
    else:
        host.kept = {"rows": "many"}
    host.on_progress = lambda _done: None
    done = await exporter.export(job(host), "a.csv", **options)
    assert (done.rows, done.snapshots) == (1000, 1)
    lines = (folder / "a.csv").read_text().split()
    assert lines[0] == ("id,title" if spoiled == "columns" else "id,name")
    assert [line for line in lines[1:] if "," in line] == [f"{n},row" for n in range(1, 1001)]


async def test_without_an_order_a_failure_leaves_nothing_behind(exporter: Exporter, folder: Path) -> None:
    with pytest.raises(Killed):
        await exporter.export(job(killing(300)), "a.csv", query=NUMBERS, batch=100)
    assert list(folder.iterdir()) == []


async def test_the_last_attempt_leaves_nothing_behind(exporter: Exporter, folder: Path) -> None:
    last = job(killing(300), attempt=5, max_attempts=5)
    with pytest.raises(Killed):
        await exporter.export(last, "a.csv", query=NUMBERS, order_by="id", batch=100)
    assert list(folder.iterdir()) == []


async def test_a_cancelled_export_keeps_what_another_attempt_can_use(exporter: Exporter, folder: Path) -> None:
    host, reached = MemoryHost(), asyncio.Event()
    host.on_progress = lambda done: reached.set() if done >= 300 else None
    last = job(host, attempt=5, max_attempts=5)  # a cancel is no failure: the job goes back
    slow = NUMBERS.replace("'row '", "pg_sleep(0.001)::text || 'row '")
    running = asyncio.ensure_future(exporter.export(last, "a.csv", query=slow, order_by="id", batch=100))
    await reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [p.name for p in folder.iterdir()] == ["a.csv.part"]
    assert (await exporter.export(last, "a.csv", query=NUMBERS, order_by="id", batch=100)).snapshots == 2


@pytest.mark.parametrize("column", ["same", "empty"])
async def test_an_order_that_is_not_unique_is_noticed(exporter: Exporter, folder: Path, column: str) -> None:
    query = "select i / 2 as same, nullif(i, 7) as empty from generate_series(1, 20) i"
    with pytest.raises(TaskError, match=f"{column} cannot order an export"):
        await run(exporter, "a.csv", query, order_by=column, batch=5)


async def test_of_two_exports_to_one_path_one_waits(exporter: Exporter, folder: Path) -> None:
    first = PartFile(folder, ["a.csv"])
    with pytest.raises(Busy, match="another export is writing a.csv"):
        await run(exporter, "a.csv", NUMBERS)
    first.publish()
    first.close()
    assert (await run(exporter, "a.csv", NUMBERS)).rows == 1000


def test_a_part_file_that_was_published_meanwhile_is_not_written_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = PartFile(folder, ["a.csv"])
    first.write(b"whole")
    lock = export_files.fcntl.flock

    def late(file: int, how: int) -> None:
        first.publish()
        first.close()
        (folder / "a.csv.part").touch()  # by a third one
        lock(file, how)

    monkeypatch.setattr(export_files.fcntl, "flock", late)
    with pytest.raises(Busy):
        PartFile(folder, ["a.csv"])
    assert (folder / "a.csv").read_bytes() == b"whole"
