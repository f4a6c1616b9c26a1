"""The house rules that tools can hold: who imports whom, where tasks start, how long a file gets."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for package in ("pipeline", "handlers") for path in (ROOT / package).rglob("*.py"))
MODULES = [path.relative_to(ROOT).as_posix() for path in FILES]
MOST_LINES = 400
PUBLIC = [
    "Backoff", "Batch", "Cancel", "Client", "Discard", "Event", "Job", "JobHandle", "Loaded", "PgreflexError",
    "Rate", "Retry", "Snooze", "TimingMiddleware", "Unique", "Workflow",
    "cache", "cached", "chunks", "connect", "create_pool", "cron", "enqueue", "enqueue_in", "export", "http_cache",
    "http_timing", "instrument", "labels", "loader", "middleware", "on", "record", "task", "timer", "transaction",
    "uninstrument",
]  # fmt: skip
HEAVY = ["asyncpg", "aiohttp", "rich", "pydantic", "uvloop", "click", "structlog", "handlers"]
# Tasks outside a group, each with the reason why nobody else can end it too early or leave it running.
LONE_TASKS = {
    "pipeline/runtime.py": "the supervisor's own: it cancels and awaits them",
    "handlers/cache_loads.py": "a load outlives the request that began it, for the others who wait for its value",
    "handlers/cache_check.py": "a load is repeated in its request's context, and given up when it takes too long",
    "pipeline/db/pool.py": "the pool ends them with itself; it lives in programs that have no supervisor",
    "pipeline/testing/inline.py": "the thread of a plain task waits for it",
    "handlers/host.py": "the thread of a plain task waits for it",
    "pipeline/app/demo.py": "the start of the server runs in a thread, which a cancelled group could not end",
}
# Who may write to standard output directly: the command line's reference, which is redirected to a file.
PRINTERS = {"pipeline/cli/reference.py"}


def tree(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"))


def calls(module: str) -> Iterator[tuple[str, str]]:
    """Every call in a module, as (what it is called on, name); `print(x)` is ("", "print")."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                yield ast.unparse(node.func.value), node.func.attr
            elif isinstance(node.func, ast.Name):
                yield "", node.func.id


def imports(module: str) -> Iterator[tuple[str, str]]:
    """Every import in a module, as (module, name); name is empty for `import module`."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_imports_run_downwards_and_every_other_contract_holds() -> None:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = python(code)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_there_are_modules_to_look_at() -> None:
    assert len(MODULES) > 60


def test_only_the_supervisor_groups_and_the_named_exceptions_start_tasks() -> None:
    starters = {"create_task", "ensure_future", "run_coroutine_threadsafe"}
    lone = {
        module
        for module in MODULES
        for owner, name in calls(module)
        if name in starters
        and not (name == "create_task" and owner.split(".")[-1] in ("tasks", "group", "_group"))
    }
    assert lone == set(LONE_TASKS)


def test_what_is_called_a_group_of_tasks_is_one() -> None:
    for module in MODULES:
        owners = {owner for owner, name in calls(module) if name == "create_task"} - {"asyncio"}
        if owners:
            assert "TaskGroup" in (ROOT / module).read_text(encoding="utf-8"), module


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_owns_and_stays_short(module: str) -> None:
    text = (ROOT / module).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    assert ast.get_docstring(ast.parse(text)), "every module opens with a docstring"


def test_nothing_but_the_command_line_prints() -> None:
    assert {module for module in MODULES if ("", "print") in set(calls(module))} <= PRINTERS
    assert all(module.startswith("pipeline/cli/") for module in PRINTERS)


def test_the_core_takes_time_and_chance_as_arguments() -> None:
    allowed = {("random", "Random"), ("uuid", "")}  # for their types
    taken = {
        (module, name, what)
        for module in MODULES
        if module.startswith("pipeline/core/")
        for name, what in imports(module)
        if name.split(".")[0] in ("random", "secrets", "time", "uuid", "os") and (name, what) not in allowed
    }
    assert taken == set()
    askers = {"now", "utcnow", "today", "uuid1", "uuid4", "urandom", "Random", "SystemRandom"}
    asked = {
        (module, owner, name)
        for module in MODULES
        if module.startswith("pipeline/core/")
        for owner, name in calls(module)
        if name in askers
    }
    assert asked == set()


def test_the_public_names_are_there() -> None:
    done = python(f"from pipeline import {', '.join(PUBLIC)}; print({', '.join(PUBLIC)})")
    assert done.returncode == 0, done.stderr
    done = python("import pipeline; assert set(pipeline.__all__) - {'__version__'} == set(" + repr(PUBLIC) + ")")
    assert done.returncode == 0, done.stderr


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    done = python("import pipeline; print(hasattr(pipeline, 'nothing'))")
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize(
    ("begin", "heavy"),
    [
        ("import pipeline", HEAVY),
        ("from pipeline import PgreflexError, Event, Job, Rate, Unique, Backoff, Retry, Snooze, Cancel", HEAVY),
        ("from pipeline import task, on", ["asyncpg", "aiohttp", "click", "pydantic", "uvloop", "handlers"]),
    ],
)
def test_importing_the_package_loads_nothing_heavy(begin: str, heavy: list[str]) -> None:
    done = python(f"{begin}\nimport json, sys; print(json.dumps([m for m in {heavy!r} if m in sys.modules]))")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
