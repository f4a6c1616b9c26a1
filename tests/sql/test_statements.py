"""Every statement says what it is, fits the migrated database, and is sent by somebody."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import asyncpg
import pytest

import pipeline
from pipeline.db.statements import folder, statement, statements
from tests.statements_kit import body, header, parameters

NAMES = statements()
PACKAGE = Path(pipeline.__file__).parent
AREAS = {name.partition("/")[0] for name in NAMES}
PGBENCH = """
create table pgbench_accounts (aid int primary key, bid int, abalance int, filler char(84));
create table pgbench_branches (bid int primary key, bbalance int, filler char(88));
create table pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
"""


def mentioned() -> dict[str, str]:
    """The statements that Python names, and where."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                area, slash, rest = node.value.partition("/")
                if slash and area in AREAS and re.fullmatch(r"\w+", rest):
                    found[node.value] = f"{path.relative_to(PACKAGE.parent)}:{node.lineno}"
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_statement_opens_with_its_name_its_parameters_and_its_locks(name: str) -> None:
    lines = header(name)
    assert re.match(rf"{name.partition('/')[2]}: \S", lines[0]), "the first line is `-- name: what it does`"
    assert sum(bool(re.match(r"locks: \S", line)) for line in lines) == 1, "one line is `-- locks: which`"
    numbers = [number for number, _ in parameters(name)]
    assert numbers == list(range(1, len(numbers) + 1)), "one `-- $n type: meaning` a parameter, in order"


@pytest.mark.parametrize("name", NAMES)
def test_a_header_explains_the_parameters_that_the_statement_has(name: str) -> None:
    used = {int(number) for number in re.findall(r"\$(\d+)", body(name))}
    assert {number for number, _ in parameters(name)} == used


async def test_every_statement_prepares_with_the_types_of_its_header(sql: asyncpg.Connection) -> None:
    await sql.execute(PGBENCH)
    wrong = {}
    for name in NAMES:
        assert body(name), f"{name}: comments alone would prepare as well"
        try:
            prepared = await sql.prepare(statement(name))  # refuses two statements in one text
        except asyncpg.PostgresError as error:
            wrong[name] = str(error)
            continue
        kinds = [kind for _, kind in parameters(name)]
        wanted = await sql.fetchval("select array(select k::regtype::oid from unnest($1::text[]) k)", kinds)
        taken = prepared.get_parameters()
        if [kind.oid for kind in taken] != wanted:
            wrong[name] = f"the header says {kinds}, Postgres takes {[kind.name for kind in taken]}"
    assert wrong == {}


async def test_a_text_with_two_statements_is_noticed(sql: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.PostgresSyntaxError):
        await sql.prepare("select 1; select 2")


def test_every_statement_is_sent_by_somebody() -> None:
    assert set(NAMES) - set(mentioned()) == set(), "no Python names these"


def test_python_names_only_statements_that_exist() -> None:
    assert {name: place for name, place in mentioned().items() if name not in NAMES} == {}


def test_statements_lie_one_folder_deep_and_nothing_else_does() -> None:
    known = set(NAMES) | {"schema"}
    root = folder("sql")
    paths = {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
    rest = {p.as_posix() for p in paths if p.with_suffix("").as_posix() not in known or p.suffix != ".sql"}
    assert {path for path in rest if path.partition("/")[0] not in ("migrations", "functions")} == set()
