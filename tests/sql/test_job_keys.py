"""Keys are filled alike in Python and in SQL."""

from __future__ import annotations

import random
import struct
from math import isfinite
from typing import Any

import asyncpg
import msgspec

from pipeline.core.keys import LONGEST_KEY, render_key

ODD: list[Any] = [
    "",
    " ",
    "a:b",
    "{v}",
    '"\\',
    "\n",
    "null",
    "é",
    "\U0001f40d",
    "\u007f",
    None,
    True,
    False,
    0,
    -0.0,
]


def some_values(draw: random.Random) -> list[Any]:
    """Texts of any characters but the zero byte and halves of pairs, integers, floats of any size."""
    points = [*range(1, 0xD800), *range(0xE000, 0x11000), 0x1F40D]
    texts = ["".join(chr(draw.choice(points)) for _ in range(draw.randrange(20))) for _ in range(500)]
    whole = [draw.choice((-1, 1)) * draw.getrandbits(draw.randrange(1, 63)) for _ in range(500)]
    exact = [struct.unpack("d", draw.randbytes(8))[0] for _ in range(500)]
    short = [round(draw.uniform(-1000, 1000), draw.randrange(6)) for _ in range(500)]
    return [*ODD, *texts, *whole, *short, *filter(isfinite, exact)]


async def test_a_value_looks_in_a_key_as_sql_prints_it(sql: asyncpg.Connection) -> None:
    values = some_values(random.Random(7))
    args = [msgspec.json.encode({"v": value}).decode() for value in values]
    rows = await sql.fetch("select pipeline.render_key('a:{v}', a::jsonb) as text from unnest($1::text[]) a", args)
    compared = 0
    for value, row in zip(values, rows, strict=True):
        if len(row["text"]) <= LONGEST_KEY:
            compared += 1
            assert render_key("a:{v}", {"v": value}) == row["text"]
    assert compared > 1_500


async def test_templates_are_read_alike(sql: asyncpg.Connection) -> None:
    args = {"a": "x}{b}", "b": 7, "c": None}
    for template in ("k", "k:{a}", "{a}", "k:{a}{b}", "k:{b}-{a}-{b}", "k:{c}!", "k:{missing}", " é "):
        told = await sql.fetchval(
            "select pipeline.render_key($1, $2)", template, msgspec.json.encode(args).decode()
        )
        assert render_key(template, args) == told
