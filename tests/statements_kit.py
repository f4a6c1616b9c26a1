"""What the tests of statements share: their headers, and how a session would plan them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import asyncpg

from pipeline.db.statements import statement

_PARAMETER = re.compile(r"\$(\d+) ([a-z][a-z0-9_]*(?:\[\])?)(?=[:,])")


def header(name: str) -> list[str]:
    """The comment lines that a statement opens with, without their dashes."""
    lines = statement(name).splitlines()
    end = next(place for place, line in enumerate([*lines, ""]) if not line.startswith("--"))
    return [line.removeprefix("--").strip() for line in lines[:end]]


def parameters(name: str) -> list[tuple[int, str]]:
    """Number and type of each parameter that the header explains, in its order."""
    found = [_PARAMETER.findall(line) for line in header(name) if line.startswith("$")]
    return [(int(number), kind) for line in found for number, kind in line]


def named_indexes(name: str) -> set[str]:
    """The indexes that the header demands."""
    lines = [line.removeprefix("index:") for line in header(name) if line.startswith("index:")]
    return {index.strip() for line in lines for index in line.split(",")}


def body(name: str) -> str:
    """The statement without its comments."""
    return re.sub(r"--[^\n]*", "", statement(name)).strip()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A node of a plan and all below it."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


async def plan_of(connection: asyncpg.Connection, name: str, arguments: str = "") -> list[dict[str, Any]]:
    """The nodes of the plan that this session has for a statement.

    arguments: as SQL. Without any all are null, which only a session that plans without looking at them
    (plan_cache_mode = force_generic_plan) answers as it would any others.
    """
    kinds = [kind for _, kind in sorted(parameters(name))]
    declared = f" ({', '.join(kinds)})" if kinds else ""
    given = f"({arguments or ', '.join('null' for _ in kinds)})" if kinds else ""
    await connection.execute(f"prepare explained{declared} as {statement(name)}")
    try:
        text = await connection.fetchval(f"explain (format json) execute explained{given}")
    finally:
        await connection.execute("deallocate explained")
    return list(nodes(json.loads(text)[0]["Plan"]))
