"""What turns rows into jobs runs with the rights of the schema's owner, and runs nobody else's code."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest


@pytest.fixture
async def stranger(sql: asyncpg.Connection) -> AsyncIterator[str]:
    """A role that owns a schema `own`; it and what it made go at the end."""
    name = f"role_{uuid.uuid4().hex[:12]}"
    await sql.execute(f"create role {name}; create schema own authorization {name}")
    yield name
    await sql.execute(f"reset role; drop owned by {name} cascade; drop role {name}")


@pytest.mark.parametrize("column", ["own.mood", "own.mood[]", "own.pair", "own.often"])
async def test_a_cast_of_another_role_is_not_run_and_the_write_goes_on(
    sql: asyncpg.Connection, stranger: str, column: str
) -> None:
    await sql.execute(
        f"""
        set role {stranger};
        create type own.mood as enum ('fine');
        create type own.pair as (a int, b own.mood);
        create domain own.often as own.mood;
        create table own.ran (who text);
        create function own.spy(own.mood) returns json language plpgsql as
            $$ begin insert into own.ran values (current_user); return '1'; end $$;
        create cast (own.mood as json) with function own.spy(own.mood);
        create table own.item (id int primary key, it {column});
        reset role;
        select pipeline.enqueue_on('own.item', 'insert', 'shop.thank');
        """
    )
    value = {"own.mood[]": "array['fine']::own.mood[]", "own.pair": "row(1, 'fine')::own.pair"}.get(
        column, "'fine'"
    )
    await sql.execute(f"set role {stranger}; insert into own.item values (1, {value}); reset role")
    assert await sql.fetchval("select count(*) from own.item") == 1
    assert await sql.fetch("select who from own.ran") == []
    assert await sql.fetchval("select count(*) from pipeline.job") == 0


async def test_other_tables_make_jobs_though_somebody_has_such_a_cast(
    sql: asyncpg.Connection, stranger: str
) -> None:
    await sql.execute(
        f"""
        set role {stranger};
        create type own.mood as enum ('fine');
        create function own.spy(own.mood) returns json language sql as $$ select '1'::json $$;
        create cast (own.mood as json) with function own.spy(own.mood);
        reset role;
        create table item (id int primary key);
        select pipeline.enqueue_on('item', 'insert', 'shop.thank');
        insert into item values (1);
        """
    )
    assert await sql.fetchval("select count(*) from pipeline.job") == 1
