"""Lets the time of a test's database stand still."""

from __future__ import annotations

import asyncpg


async def stand_at(sql: asyncpg.Connection, at: float) -> None:
    """Let pipeline.now() be `at` (Unix seconds) in this session and in all that are opened later."""
    await sql.execute(
        "do $$ begin execute format('alter database %I set pipeline.fake_now = %L', current_database(), "
        f"to_timestamp({at!r})::text); end $$"
    )
    await sql.execute(f"select set_config('pipeline.fake_now', to_timestamp({at!r})::text, false)")
