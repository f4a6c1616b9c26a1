"""Who looks at the queue from outside while it is shaken.

Owns: the samples of what leases hold, and the two people of the story: one cancels jobs that run, one lets dead
letters run again. Knows no fault.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from bench.chaos_faults import HARNESS
from bench.crew import DOWN

SAMPLE_SECONDS = 0.03
LIMITS = {"queue five": 5, "key one": 1, "key two": 2}
HOLDERS = """
select 'queue five' as limited, coalesce(sum(cardinality(ids)), 0) as held from pipeline.lease where queue = 'five'
union all
select 'key ' || split_part(key, ':', 1), sum(cardinality(ids)) from pipeline.lease
where key like 'one:%' or key like 'two:%' group by key
"""
TWICE = """
select j.task || ' ' || j.id || ' in leases ' || array_agg(h.lease)::text
from (select l.id as lease, unnest(l.ids) as id from pipeline.lease l) h
join pipeline.job j on j.id = h.id
group by j.id having count(*) > 1
"""
CANCEL = """
select pipeline.cancel_jobs(array(
    select j.id from pipeline.job j
    where j.task = 'chaos.cancelled' and exists (select from chaos.start s where s.job = j.id)
), 'by the check')
"""
REDRIVE = """
with letters as materialized (
    select a.id from pipeline.job_archive a where a.task = 'chaos.letter' and a.state = 'failed'
), noted as (
    insert into chaos.redriven select id from letters on conflict do nothing
)
select pipeline.retry_jobs(array(select id from letters))
"""


class Watch:
    """samples: how often leases were looked at. over: what held more than its limit allows. twice: jobs that had
    not ended and were in two leases at once."""

    def __init__(self, dsn: str) -> None:
        self.samples = 0
        self.over: list[str] = []
        self.twice: dict[str, None] = {}
        self._dsn = dsn

    async def sample(self) -> None:
        """Count what leases hold, in one snapshot each time, until cancelled."""
        await self._often(SAMPLE_SECONDS, self._count)

    async def meddle(self) -> None:
        """Cancel and redrive, until cancelled."""
        await self._often(0.5, self._cancel_and_redrive)

    async def _count(self, connection: asyncpg.Connection[Any]) -> None:
        for row in await connection.fetch(HOLDERS):
            if row["held"] > LIMITS[row["limited"]]:
                self.over.append(f"{row['limited']}: {row['held']} held")
        self.twice |= {row[0]: None for row in await connection.fetch(TWICE)}
        self.samples += 1

    async def _cancel_and_redrive(self, connection: asyncpg.Connection[Any]) -> None:
        await connection.execute(CANCEL)
        await connection.execute(REDRIVE)

    async def _often(self, seconds: float, look: Callable[[asyncpg.Connection[Any]], Awaitable[None]]) -> None:
        while True:
            with contextlib.suppress(*DOWN):
                connection = await asyncpg.connect(
                    self._dsn, timeout=5, server_settings={"application_name": HARNESS}
                )
                try:
                    while True:
                        await look(connection)
                        await asyncio.sleep(seconds)
                finally:
                    connection.terminate()
            await asyncio.sleep(0.2)
