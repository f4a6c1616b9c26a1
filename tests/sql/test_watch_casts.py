"""Casts that others made never run with the rights of the schema's owner."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest


@pytest.fixture
async def mallory(sql: asyncpg.Connection) -> AsyncIterator[str]:
    """A role without rights, which owns a table and a type."""
    name = f"mallory_{uuid.uuid4().hex[:12]}"
    await sql.execute(f"create role {name}")
    await sql.execute(f"grant create on schema public to {name}")
    yield name
    await sql.execute(f"drop owned by {name} cascade; drop role {name}")


@pytest.mark.parametrize(
    "watch", ["keys => '{mood}'", "keys => '{id,mood}'", "keys => '{id}', columns => '{mood}'"]
)
async def test_a_cast_of_the_tables_owner_does_not_run_with_our_rights(
    sql: asyncpg.Connection, mallory: str, watch: str
) -> None:
    await sql.execute(f"set role {mallory}")
    await sql.execute(
        f"""
        create table public.witness (who text);
        create type public.mood as enum ('good', 'bad');
        create function public.spy(m public.mood) returns text language plpgsql as $$
        begin
            insert into public.witness values (current_user);
            return 'x';
        end $$;
        create cast (public.mood as text) with function public.spy(public.mood) as implicit;
        create table public.diary (id int primary key, mood public.mood);
        reset role;
        select pipeline.watch('diary', {watch});
        set role {mallory};
        insert into diary values (1, 'good'), (2, 'good');
        insert into diary values (3, 'good');
        update diary set mood = 'bad' where id = 1;
        delete from diary where id = 2;
        reset role;
        """
    )
    assert await sql.fetch("select who from public.witness") == []
    assert await sql.fetchval("select count(*) from pipeline.outbox where op in ('i', 'u', 'd')") == 4
