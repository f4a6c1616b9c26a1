"""Who may export what, where to, and what a disk that refuses leads to."""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from handlers import export_files
from handlers.export import Exporter
from pipeline.core.directives import Discard
from pipeline.core.export import Export
from pipeline.db.export import ExportStore
from pipeline.errors import PermissionMissing, PgreflexError, TaskError
from tests.flow.export_kit import NUMBERS, run
from tests.host_kit import MemoryHost, job


async def test_nothing_is_exported_without_a_directory(dsn: str) -> None:
    closed = Exporter(ExportStore(dsn), {"n": Export("n", NUMBERS)}, directory=None, queries=True)
    with pytest.raises(Discard, match="this daemon exports nothing"):
        await closed.export(job(MemoryHost()), "a.csv", "n")


@pytest.mark.parametrize(
    "args", [{"path": "../a.csv"}, {"path": "/tmp/a.csv"}, {"path": "a.xls"}, {"path": "a.csv", "query": " "}]
)
async def test_a_job_that_no_retry_can_mend_fails_at_once(
    exporter: Exporter, folder: Path, args: dict[str, str]
) -> None:
    with pytest.raises(Discard):
        await exporter.export(job(MemoryHost()), **{"query": NUMBERS, **args})
    assert list(folder.iterdir()) == []


async def test_only_declared_exports_run_unless_queries_are_allowed(dsn: str, folder: Path) -> None:
    declared = {"some": Export("some", "select i as id from generate_series(1, $1::int) i", "id")}
    exporter = Exporter(ExportStore(dsn), declared, directory=folder)
    for more in ({"query": "select 1 as a"}, {"table": "pg_authid"}):
        with pytest.raises(Discard, match="only what its program has declared"):
            await exporter.export(job(MemoryHost()), "a.csv", **more)
    with pytest.raises(TaskError, match="no export is named other"):
        await exporter.export(job(MemoryHost()), "a.csv", "other")
    for more in ({}, {"name": "some", "query": "select 1 as a"}):
        with pytest.raises(Discard, match="exactly one of the three"):
            await exporter.export(job(MemoryHost()), "a.csv", **more)
    assert list(folder.iterdir()) == []
    assert (await exporter.export(job(MemoryHost()), "a.csv", "some", params=[3])).rows == 3


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("insert into t values (2)", "not one SELECT"),
        ("with w as (insert into t values (2) returning id) select id from w", "not one SELECT"),
        ("select 1 as a; delete from t", "not one SELECT"),
        ("select 1 as a) as q; delete from t; --", "not one SELECT"),
        ("copy (select 1) to program 'true'", "not one SELECT"),
        ("select id from t for update", "may only read"),
        ("select nextval('s') as n", "may only read"),
        ("select write_it() as n", "may only read"),
        ("select set_config('transaction_read_only', 'off', false) as off, write_it() as n", "read-write mode"),
        ("select 1 / 0 as n", "division by zero"),
        ("select 1 as a, 2 as a", "two columns are named a"),
        ("select", "no columns|not one SELECT"),
        ("select $1::int as a", "takes 1 params, not 0"),
        ("(", "not one SELECT"),
    ],
)
async def test_a_query_can_only_read(
    sql: asyncpg.Connection, exporter: Exporter, folder: Path, query: str, why: str
) -> None:
    await sql.execute(
        """
        create table t (id int); insert into t values (1); create sequence s;
        create function write_it() returns int language sql as 'insert into t values (3) returning id';
        """
    )
    with pytest.raises(TaskError, match=why):
        await run(exporter, "a.csv", query)
    assert await sql.fetchval("select array_agg(id) from t") == [1]
    assert list(folder.iterdir()) == []


async def test_a_table_goes_by_its_name_in_sql(sql: asyncpg.Connection, exporter: Exporter, folder: Path) -> None:
    await sql.execute('create schema "S p"; create table "S p"."T;x" (id int); insert into "S p"."T;x" values (1)')
    assert (await run(exporter, "a.csv", table='"S p"."T;x"')).rows == 1
    with pytest.raises(TaskError, match="there is no table nope"):
        await run(exporter, "a.csv", table="nope")
    with pytest.raises(PgreflexError):
        await run(exporter, "a.csv", table="pg_class; select 1")
    with pytest.raises(TaskError, match="has no column nope"):
        await run(exporter, "a.csv", table='"S p"."T;x"', order_by="nope")


async def test_a_role_without_rights_is_told_so(sql: asyncpg.Connection, dsn: str, folder: Path) -> None:
    role = f"reader_{uuid.uuid4().hex[:12]}"
    await sql.execute(f"create role {role} login password 'secret'; create table hidden (id int)")
    parts = urlsplit(dsn)
    address = urlunsplit(parts._replace(netloc=f"{role}:secret@{parts.netloc.rpartition('@')[2]}"))
    exporter = Exporter(ExportStore(address), {}, directory=folder, queries=True)
    try:
        with pytest.raises(PermissionMissing):
            await run(exporter, "a.csv", table="hidden")
    finally:
        await sql.execute(f"drop role {role}")


async def test_a_symlink_leads_nowhere(exporter: Exporter, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "victim").write_text("kept")
    (folder / "out").symlink_to(tmp_path / "outside")
    (folder / "a.csv.part").symlink_to(tmp_path / "outside" / "victim")
    (folder / "b.csv").symlink_to(tmp_path / "outside" / "victim")
    for path in ("out/a.csv", "a.csv"):
        with pytest.raises(TaskError, match="symlink"):
            await run(exporter, path, NUMBERS)
    await run(exporter, "b.csv", NUMBERS)  # replaces the link itself
    assert [p.name for p in (tmp_path / "outside").iterdir()] == ["victim"]
    assert (tmp_path / "outside" / "victim").read_text() == "kept"
    assert not (folder / "b.csv").is_symlink()


async def test_a_directory_that_is_missing_is_named(dsn: str, exporter: Exporter, folder: Path) -> None:
    with pytest.raises(TaskError, match="export to nope/a.csv cannot be written: the directory is missing"):
        await run(exporter, "nope/a.csv", NUMBERS)
    gone = Exporter(ExportStore(dsn), {}, directory=folder / "gone", queries=True)
    with pytest.raises(TaskError, match="the directory is missing"):
        await run(gone, "a.csv", NUMBERS)
    (folder / "d.csv").mkdir()
    with pytest.raises(TaskError, match="there is a directory of that name"):
        await run(exporter, "d.csv", NUMBERS)


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "may not write there")]
)
async def test_a_disk_that_refuses_is_explained_and_the_old_file_stays(
    exporter: Exporter, folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    (folder / "a.csv").write_text("old")

    def refuse(*_args: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(export_files.os, "write", refuse)
    with pytest.raises(TaskError, match=f"a.csv cannot be written: .*{words}"):
        await run(exporter, "a.csv", NUMBERS)
    monkeypatch.undo()
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [("a.csv", "old")]


async def test_a_short_write_is_gone_on_with(
    exporter: Exporter, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(export_files.os, "write", lambda file, data: write(file, data[:1000]))
    done = await run(exporter, "a.csv", NUMBERS)
    monkeypatch.undo()
    assert hashlib.sha256((folder / "a.csv").read_bytes()).hexdigest() == done.sha256
    assert (folder / "a.csv").read_text().count("\n") == 1001
