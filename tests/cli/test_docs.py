"""The examples of the pages on SQL, Python and the cache, run as they are printed, and the links of every page."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import msgspec
import pytest

import pipeline
from pipeline.core.cache_policy import Options, Policy
from pipeline.core.pool_options import PoolOptions
from pipeline.definition import TaskOptions
from pipeline.registry import Registry, load
from tests.cli.conftest import ROOT, clean_environment

DOCS = ROOT / "docs"
WORDS = ("none", "as `ttl", "see below", "as configured")  # for None, which means something else for each option
PRINTED = [
    ("python.md", 0, "job 1\n"),
    ("python.md", 1, "job 1\njob 2\n"),
    ("python.md", 2, '1 written\nrow 0: duplicate key value violates unique constraint "orders_pkey"\n'),
    (
        "pool.md",
        0,
        '2\npool "main" is exhausted: none of its 2 connections came free within 0.2 s; held by: [1] 0.',
    ),
    ("cache.md", 0, "[{'id': 1, 'status': 'new'}]\nnew new\nread from somewhere\nnew\nHealth("),
    ("cache.md", 1, "[{'status': 'paid'}]\n"),
    ("cache.md", 2, "['new', 'none', 'new']\n"),
]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


async def test_every_statement_of_the_sql_page_runs_in_the_order_of_the_page(sql: asyncpg.Connection) -> None:
    role = f"app_{uuid.uuid4().hex[:12]}"
    page = blocks("sql.md", "sql")
    assert len(page) >= 12
    try:
        for block in page:
            await sql.execute(re.sub(r"\b(role|to) app\b", rf"\1 {role}", block))
    finally:
        await sql.execute(f"drop role if exists {role}")
    left = "select count(*) from pg_trigger where not tgisinternal and tgname ~ 'pgreflex|pipeline'"
    assert await sql.fetchval(left) == 0
    await sql.execute("insert into orders (id) values (1)")


async def test_the_sql_page_names_every_function_that_a_user_may_call(sql: asyncpg.Connection) -> None:
    # what is internal is either closed to the public or part of how the feed, the timings and shared values
    # are read
    internal = {
        "now", "fake_now", "epoch", "lineage", "enqueue_rows", "series_name", "watch_problem",
        "watched_over", "cache_get", "cache_put", "cache_raise", "cache_release", "cache_turn",
        "changes_since", "contained", "own_changes", "remember_queries", "timing_ids", "write_timings",
        "alert_row", "claim_plan", "refuse_plan", "save_plan",
    }  # fmt: skip
    rows = await sql.fetch(
        "select distinct proname from pg_proc where pronamespace = 'pipeline'::regnamespace"
        " and has_function_privilege('public', oid, 'execute')"
    )
    text = (DOCS / "sql.md").read_text(encoding="utf-8")
    missing = {row["proname"] for row in rows if f"pipeline.{row['proname']}(" not in text} - internal
    assert missing == set()


@pytest.mark.parametrize(("page", "number", "printed"), PRINTED)
async def test_the_modules_of_a_page_run(
    page: str, number: int, printed: str, dsn: str, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    await sql.execute("create table orders (id int primary key, status text)")
    await sql.execute("insert into orders values (1, 'new')")
    await sql.execute("select pipeline.watch('orders')")
    module = tmp_path / "example.py"
    module.write_text(blocks(page, "python")[number], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(module)],
        env=clean_environment(DATABASE_URL=dsn, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # stderr may warn that a busy machine made the feed late
    assert done.stdout.startswith(printed), (done.stdout, done.stderr)


def test_the_modules_of_tasks_on_the_python_page_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    modules = [block for block in blocks("python.md", "python") if block.startswith("# shop")]
    assert len(modules) == 2
    for number, block in enumerate(modules):
        (tmp_path / f"page{number}.py").write_text(block, encoding="utf-8")
    registry = load([f"page{number}" for number in range(len(modules))], Registry())
    assert len(registry.tasks) == 6
    assert len(registry.middlewares) == 1


def test_the_python_page_names_every_option_of_a_task_with_its_default() -> None:
    table = (DOCS / "python.md").read_text(encoding="utf-8").partition("### Options")[2].partition("\n\n|")[2]
    rows = [[cell.strip() for cell in line.split(" | ")] for line in table.partition("\n\n")[0].splitlines()[2:]]
    assert sorted(row[0].strip("| `") for row in rows) == sorted(TaskOptions.__annotations__)
    told = {row[0].strip("| `"): row[2].strip("| `") for row in rows}
    plain = {"queue", "max_attempts", "priority", "batch_wait", "process", "encrypt"}
    task = Registry().add_task(lambda job: None, name="t")
    assert {name: told[name] for name in plain} == {
        name: f'"{value}"' if isinstance(value := getattr(task, name), str) else f"{value:g}"
        if isinstance(value, float) else str(value)
        for name in plain
    }  # fmt: skip


def test_the_cache_page_names_every_option_with_its_default() -> None:
    table = (DOCS / "cache.md").read_text(encoding="utf-8").partition("## Options")[2].partition("## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines() if line[:1] == "|"
    ]
    told = {name.strip("` "): row[1] for row in rows[2:] for name in row[0].split(",")}
    assert sorted(told) == sorted(Options.__annotations__) == sorted(Policy.__struct_fields__)
    plain = Policy()
    for name, default in told.items():
        value = getattr(plain, name)
        assert default.strip('`"') in (f"{value:g}" if isinstance(value, float) else str(value), *WORDS), name


def test_the_pool_page_names_every_option_with_its_default() -> None:
    table = (DOCS / "pool.md").read_text(encoding="utf-8").partition("## Options")[2].partition("## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    plain = msgspec.structs.asdict(PoolOptions())
    told = {name.strip("`"): default for name, default, _why in rows}
    assert told == {name: f"{v:g}" if isinstance(v, float) else str(v) for name, v in plain.items()}
    given = inspect.signature(pipeline.create_pool).parameters
    assert {name: given[name].default for name in plain} == {**plain, "name": None}


def test_the_python_page_names_every_public_name() -> None:
    names = (DOCS / "python.md").read_text(encoding="utf-8").partition("## The client")[0]
    assert [name for name in pipeline.__all__ if f"{name}`" not in names and f"{name}(" not in names] == [
        "__version__"
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert urlsplit(target).scheme or (page.parent / target).exists(), target
