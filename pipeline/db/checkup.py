"""Looks at a server as `pgreflex check` needs it.

Owns: the order of the looks, and that one which fails does not keep the others from being tried. Knows
nothing of what is good or bad: pipeline/core/checkup.py judges.
"""

from __future__ import annotations

import asyncio
import time
import uuid

import msgspec

from pipeline.core.checkup import OLDEST_SERVER, Facts, Failure, Server, WatchedTable
from pipeline.db.connection import OwnConnection, connect, connect_session, translated
from pipeline.db.migrate import status
from pipeline.db.pooler import transacted
from pipeline.db.statements import statement
from pipeline.errors import PgreflexError, TransactionPooler

LISTEN_SECONDS = 5.0
CLOCK_LOOKS = 5


async def examine(dsn: str | None, listen_dsn: str | None) -> Facts:
    """Gather all facts; a failure is a fact too. Never raises for what the server does."""
    try:
        connection = await connect(dsn, purpose="check")
    except PgreflexError as error:
        return Facts(server=_failure(error))
    try:
        with translated():
            return await _look(connection, dsn, listen_dsn)
    except PgreflexError as error:
        return Facts(server=_failure(error))
    finally:
        await connection.close(timeout=5)


async def _look(connection: OwnConnection, dsn: str | None, listen_dsn: str | None) -> Facts:
    async with transacted(connection):
        row = await connection.fetchrow(statement("admin/facts"))
        offset, round_trip = await _clock(connection)
    server = msgspec.convert(dict(row or {}), Server)
    facts = Facts(server=server, pooled=connection.pooled, clock_seconds=offset, round_trip_seconds=round_trip)
    if server.in_recovery or server.version_num < OLDEST_SERVER:
        return facts
    try:
        facts = msgspec.structs.replace(facts, listen=await _listen(connection, listen_dsn), listen_tried=True)
    except TransactionPooler as error:
        facts = msgspec.structs.replace(facts, poll_only=_failure(error))
    return msgspec.structs.replace(
        facts,
        pending=await _pending(dsn, server),
        watched=await _watched(connection, server),
    )


async def _clock(connection: OwnConnection) -> tuple[float, float]:
    """Server minus host in seconds, and the round trip of the look, the shortest of a few."""
    looks: list[tuple[float, float]] = []
    for _ in range(CLOCK_LOOKS):
        asked, began = time.time(), time.monotonic()
        there = (await connection.fetchval(statement("admin/clock"))).timestamp()
        took = time.monotonic() - began
        looks.append((took, there - (asked + took / 2)))
    took, offset = min(looks)
    return offset, took


async def _pending(dsn: str | None, server: Server) -> tuple[str, ...] | Failure | None:
    if server.read_only or server.owns_schema is False:
        return None
    try:
        return tuple(file.name for file in (await status(dsn)).pending)
    except PgreflexError as error:
        return _failure(error)


async def _watched(connection: OwnConnection, server: Server) -> tuple[WatchedTable, ...] | Failure:
    if server.owns_schema is None:
        return ()
    try:
        with translated():
            async with transacted(connection):
                rows = await connection.fetch(statement("admin/watched_rights"))
    except PgreflexError as error:
        return _failure(error)
    return tuple(msgspec.convert(dict(row), WatchedTable) for row in rows)


async def _listen(sender: OwnConnection, listen_dsn: str | None) -> Failure | None:
    """None when a notification came back on a connection of its own. Raises TransactionPooler."""
    try:
        listener = await connect_session(listen_dsn, purpose="check")
    except TransactionPooler:
        raise
    except PgreflexError as error:
        return Failure(f"listen_dsn: {error.message}", error.hint)
    try:
        with translated():
            return await _round_trip(sender, listener)
    except PgreflexError as error:
        return _failure(error)
    finally:
        await listener.close(timeout=5)


async def _round_trip(sender: OwnConnection, listener: OwnConnection) -> Failure | None:
    channel, heard = f"pipeline_check_{uuid.uuid4().hex}", asyncio.Event()
    await listener.add_listener(channel, lambda *_: heard.set())
    async with transacted(sender):
        await sender.execute(statement("admin/ring"), channel, "")
    try:
        async with asyncio.timeout(LISTEN_SECONDS):
            await heard.wait()
    except TimeoutError:
        return Failure(
            f"no notification came back within {LISTEN_SECONDS:.0f} s: "
            "the address leads through a transaction pooler, or to another database",
            TransactionPooler.default_hint,
        )
    return None


def _failure(error: PgreflexError) -> Failure:
    return Failure(error.message, error.hint)
