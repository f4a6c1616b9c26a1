"""The examples of docs/jobs.md, run as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from pipeline.core.job_filter import STATES
from pipeline.registry import Registry, load
from pipeline.testing import InlineHost, jobs, run_inline

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8")


def examples(section: str, language: str) -> list[str]:
    [text] = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


async def test_the_first_example_tells_saves_and_commits(
    sql: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [module] = examples("A task that tells, saves and commits once", "python")
    (tmp_path / "bill.py").write_text(module, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = load(["bill"], Registry())
    host = InlineHost(saved=1)
    assert await run_inline("bill", customers=[7, 8, 9], registry=registry, host=host) == {"bills": 3}
    assert (host.value, [line for _level, line in host.lines]) == (3, ["billing customer 8", "billing customer 9"])
    await sql.execute("create table account (id int, cents int)")
    await sql.execute("insert into account values (1, 500)")
    await run_inline("pay_out", account=1, cents=120, registry=registry, conn=sql)
    assert await sql.fetchval("select cents from account") == 380


def test_the_table_of_contents_leads_to_headings() -> None:
    headings = {
        re.sub(r"[^\w -]", "", found.lower()).replace(" ", "-") for found in re.findall(r"^##+ (.*)$", PAGE, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= headings


def test_the_page_tells_every_state() -> None:
    [section] = re.findall(r"^## States\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(STATES)


async def test_the_example_with_secrets_keeps_them(
    dsn: str, sql: asyncpg.Connection, tmp_path: Path, monkeypatch: object, capsys: object
) -> None:
    [module] = examples("Keeping arguments secret", "python")
    (tmp_path / "pay.py").write_text(module, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))  # type: ignore[attr-defined]
    registry = load(["pay"], Registry())
    [shell] = examples("Keeping arguments secret", "sh")
    made = subprocess.run(
        shell.splitlines()[0].partition(" >")[0].split(), capture_output=True, text=True, check=True
    )
    async with jobs(dsn, registry=registry, encryption_keys=[made.stdout]) as queue:
        await queue.enqueue("pay", order_id=7, card="4111-1111")
        assert "4111-1111" not in await sql.fetchval("select args::text from pipeline.job")
        assert await queue.drain() == {"finished": 1}
    address = {"street": "Main 1", "town": "Ulm"}
    await run_inline("sign_up", name="Ada", password="hunter2", address=address, registry=registry)
    assert capsys.readouterr().out == (  # type: ignore[attr-defined]
        "order 7 is paid with a card that ends in 11\nAda has a password of 7 characters\n"
    )


def test_the_tests_of_the_page_pass(dsn: str, tmp_path: Path) -> None:
    for module in examples("Testing your jobs", "python"):
        [name] = re.findall(r"^# (\w+\.py)$", module, re.MULTILINE)
        (tmp_path / name).write_text(module, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "error", "."],
        cwd=tmp_path,
        env={**os.environ, "DATABASE_URL": dsn, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
