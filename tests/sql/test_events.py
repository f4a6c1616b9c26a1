"""What Postgres writes of an event is what we read of it, whatever stands in keys, names and payloads."""

from __future__ import annotations

import json
import random

import asyncpg

from pipeline.core.events import Event, decode, pack
from pipeline.core.snapshot import BEGINNING
from pipeline.db.feed import LeaderSession

TEXTS = [
    "",
    '"',
    "\\",
    "\x01\x1f\x7f",
    "\u2028",
    "€",
    "😀",
    "a,b",
    "{}",
    "null",
    "NULL",
    "'",
    "\n",
    "t:1",
    "x" * 9_000,
]
NEW = """
insert into pipeline.outbox_0 (xid, id, watch, op, keys, rows, ms, at, name, payload)
select pg_current_xact_id(), e.id, null, e.op::"char", e.keys, e.rows, e.ms::real, now(), e.name, e.payload
from jsonb_to_recordset($1::jsonb) as e (
    id bigint, op text, keys text[], rows int, ms float8, name text, payload text
)
"""


def an_event(rng: random.Random) -> Event:
    return Event(
        0,
        rng.choice(TEXTS[:-1]) or "orders",
        rng.choice("iudtew"),
        rng.choice([None, (), tuple(rng.choices(TEXTS[:-1], k=rng.randint(1, 5)))]),
        rng.choice([0, 1, 1, 2, 2**31 - 1]),
        rng.choice([None, 0.0, 0.125, 1234.5, 1e6]),
        rng.choice([None, None, rng.choice(TEXTS)]),
    )


async def test_events_of_every_form_arrive_as_they_were_written(sql: asyncpg.Connection, dsn: str) -> None:
    rng = random.Random(7)
    events = [an_event(rng) for _ in range(600)]
    rows = [
        {"id": n, "op": e.op, "keys": e.keys, "rows": e.rows, "ms": e.ms, "name": e.name, "payload": e.payload}
        for n, e in enumerate(events)
    ]
    await sql.execute(NEW, json.dumps(rows))
    session = LeaderSession(dsn)
    await session.open()
    try:
        reading = await session.read(BEGINNING, None, (0, 0), 1_000)
    finally:
        await session.close()
    assert len(reading.lines) == len(reading.ages_ms) == len(events)
    parcels = pack(reading.lines, epoch="e", after=0, position=str(reading.upto))
    found = [event for parcel in parcels for event in decode(parcel.payload).events]
    assert len({event.xid for event in found}) == 1
    for written, read in zip(events, found, strict=True):
        assert (read.name, read.op, read.keys, read.rows, read.ms, read.payload) == (
            *(written.name, written.op, written.keys, written.rows, written.ms, written.payload),
        )
    assert all(len(parcel.notice.encode()) < 8_000 for parcel in parcels)
    await sql.executemany("select pg_notify('pipeline_feed', $1)", [(parcel.notice,) for parcel in parcels])
