"""The producers of the chaos check.

Owns: which jobs there are, in which chunks they are enqueued, and when. Knows no fault and no check.

A chunk is one transaction on the producer's own connection: its jobs, a note of each job's id, a note that the
chunk is done. So what was committed is known exactly, whoever was killed and whichever answer was lost.
"""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import asyncpg
import uvloop

from bench.crew import DOWN, die_with_parent, log_to
from pipeline.core.workflow import Workflow
from pipeline.db.jobs import JobStore, job_database
from pipeline.db.workflows import WorkflowStore
from pipeline.errors import PgreflexError
from pipeline.registry import default

CHUNK = 20
SHARES = {
    "plain": 0.40, "delayed": 0.10, "flaky": 0.07, "one": 0.03, "two": 0.04, "five": 0.06, "rated": 0.06,
    "key_rated": 0.02, "tenant": 0.03, "unique": 0.04, "expiring": 0.03, "batch": 0.05, "thread": 0.02,
    "transaction": 0.05,
}  # fmt: skip
FEW = {"process": 40, "saver": 120, "long": 60, "cancelled": 30, "letter": 60, "workflow": 60}
KEYS = 10
UNIQUE_KEYS = 15
NEIGHBOURS = 50
SENT_FLOW = "insert into chaos.sent select j.id, 'workflow' from pipeline.job j where j.workflow = $1"
SENT_MANY = """
insert into chaos.sent select unnest(pipeline.enqueue_many('chaos.plain', $1::text[]::jsonb[])), 'plain'
"""
SENT = "insert into chaos.sent (job, kind, run_at) values ($1, $2, $3) on conflict do nothing"


def plan(jobs: int, few: float = 1.0) -> list[list[str]]:
    """The kinds of all jobs, in chunks; the same for the same arguments. few: how much of the costly kinds."""
    rare = {kind: max(2, round(count * few)) for kind, count in FEW.items()}
    rare["long"] = max(6, rare["long"])  # these are what a stopped worker says too much of
    rest = jobs - sum(rare.values()) - NEIGHBOURS - 1
    kinds = [kind for kind, count in rare.items() for _ in range(count)]
    for kind, share in SHARES.items():
        kinds += [kind] * round(share * rest)
    Random(1).shuffle(kinds)
    chunks = [kinds[at : at + CHUNK] for at in range(0, len(kinds), CHUNK)]
    chunks.insert(len(chunks) // 4, ["poison", *["neighbour"] * NEIGHBOURS])
    return chunks


def diamond(n: int) -> Workflow:
    """One job, three that need it, one that needs these."""
    flow = Workflow("diamond")
    first = flow.add("chaos.workflow", {"n": n, "place": 0}, name="first")
    middle = [flow.add("chaos.workflow", {"n": n, "place": 1}, name=name, after=first) for name in "abc"]
    flow.add("chaos.workflow", {"n": n, "place": 2}, name="last", after=middle)
    return flow


def produce(
    name: str,
    dsn: str,
    log_path: str,
    part: tuple[int, int],
    chunks: list[list[str]],
    began: float,
    seconds: float,
) -> None:
    """A producer process: its part of the chunks, spread over `seconds` from `began` on the monotonic clock."""
    die_with_parent()
    log_to(log_path, name)
    uvloop.run(Producer(name, dsn).run(part, chunks, began, seconds))


class Producer:
    def __init__(self, name: str, dsn: str) -> None:
        self._name = name
        self._dsn = dsn
        self._rng = Random()

    async def run(self, part: tuple[int, int], chunks: list[list[str]], began: float, seconds: float) -> None:
        """Until every chunk of the part is committed; then sleeps, so that it is not replaced."""
        first, step = part
        left = list(range(first, len(chunks), step))
        while left:
            try:
                connection = await asyncpg.connect(self._dsn, server_settings={"application_name": self._name})
                try:
                    done = {row["n"] for row in await connection.fetch("select n from chaos.chunk")}
                    left = [n for n in left if n not in done]
                    async with job_database(self._dsn, max_size=1) as database:
                        store = JobStore(database, registry=default)
                        for n in left:
                            await asyncio.sleep(began + seconds * n / len(chunks) - time.monotonic())
                            await self._chunk(connection, store, n, chunks[n])
                        left = []
                finally:
                    connection.terminate()
            except (*DOWN, PgreflexError):
                await asyncio.sleep(0.2)
        await asyncio.Event().wait()

    async def _chunk(self, connection: Any, store: JobStore, n: int, kinds: list[str]) -> None:
        async with connection.transaction():
            await connection.execute("insert into chaos.chunk values ($1)", n)
            for place, kind in enumerate(kinds):
                await self._one(connection, store, n * 100 + place, kind)
                if place == len(kinds) // 2 and self._rng.random() < 0.3:
                    await asyncio.sleep(self._rng.uniform(0.05, 1.0))  # positions are drawn, and not committed
            if kinds[0] == "plain":
                await connection.execute(SENT_MANY, [json.dumps({"n": -k}) for k in range(5)])

    async def _one(self, connection: Any, store: JobStore, n: int, kind: str) -> None:
        if kind == "workflow":
            flow = (await WorkflowStore(store.database).start(diamond(n), conn=connection)).id
            await connection.execute(SENT_FLOW, flow)
            return
        name, args, run_at = f"chaos.{kind}", {"n": n}, None
        if kind == "delayed":
            name, run_at = "chaos.started", datetime.now(UTC) + timedelta(seconds=self._rng.uniform(0.2, 8))
        elif kind == "key_rated":
            args = {"n": 0}  # one key, so that its rate is reached
        elif kind in ("one", "two", "tenant"):
            args = {"n": n % KEYS}
        elif kind == "unique":
            args = {"n": n % UNIQUE_KEYS}
        elif kind == "expiring" and n % 3 == 0:
            run_at = datetime.now(UTC) + timedelta(seconds=1)
        job = await store.enqueue(name, args, run_at=run_at, conn=connection)
        await connection.execute(SENT, job, kind, run_at)
