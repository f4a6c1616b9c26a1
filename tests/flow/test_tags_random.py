"""A short run of the oracle of automatic tags; `make check-tags` is the long one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.tags_bugs import BUGS
from tests.tags_oracle import Oracle

SEED = int(os.environ.get("PGREFLEX_TAGS_SEED", "11"))


@pytest.fixture(name="oracle")
async def oracle_fixture(dsn: str) -> AsyncIterator[Oracle]:
    sql = await asyncpg.connect(dsn, statement_cache_size=0)
    oracle = Oracle(dsn, sql)
    await oracle.open()
    yield oracle
    await oracle.close()
    await sql.close()


async def test_no_result_changes_without_an_event_that_touches_its_tags(oracle: Oracle) -> None:
    await oracle.run(SEED, seconds=10, worlds=12)
    assert not oracle.bugs, oracle.bugs[0]
    assert oracle.counts["results"] > 100


@pytest.mark.parametrize("name", ["views are not followed"])
async def test_the_oracle_finds_a_seeded_mistake(oracle: Oracle, name: str) -> None:
    async with BUGS[name](oracle):
        await oracle.run(SEED, seconds=90, worlds=200)
    assert oracle.bugs
