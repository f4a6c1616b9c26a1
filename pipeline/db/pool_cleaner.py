"""Takes connections back from those who borrowed them, and makes them as good as new.

Owns: the rollback, the reset, and the bound on both. Knows nothing of who gets the connection next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import structlog
from asyncpg.protocol.protocol import Protocol

from pipeline.core.recent import Recent
from pipeline.db.pool_desk import Meter
from pipeline.db.pool_slot import Lent, Slot

if TYPE_CHECKING:
    from pipeline.db.pool import Pool

log = structlog.get_logger("pgreflex.pool")


class Cleaner:
    """Cleans the connections of one pool. rolled_back_total: those given back inside a transaction."""

    def __init__(self, pool: Pool, meter: Meter, reset: Callable[[Any], Awaitable[None]] | None) -> None:
        self.holds = Recent()
        self.rolled_back_total = 0
        self.reclaimed_total = 0
        self._pool = pool
        self._meter = meter
        self._reset = reset

    async def take_back(self, lent: Lent, bound: float) -> None:
        """What `release` does."""
        slot = lent._holder
        con = slot._con
        if not self._end_loan(slot):
            return
        try:
            con._on_release()  # warns of listeners that were left
        finally:
            await self.clean(slot, bound)

    def reclaim(self, slot: Slot) -> None:
        """Take a connection back from a borrower who cannot give it back any more."""
        self.reclaimed_total += 1
        if self._end_loan(slot):
            self._pool.spawn(self.clean(slot, self._pool.options.reset_timeout))

    def _end_loan(self, slot: Slot) -> bool:
        """Whether the connection has to be cleaned; if not, it is handed on, or gone, already."""
        now = time.monotonic()
        held_ms = (now - slot.lent_at) * 1000
        self.holds.add(held_ms, now)
        self._meter.add(held_ms)
        if not slot.is_connected():
            slot.take_back()
            self._pool.forget(slot)
            return False
        if not slot.is_used():
            slot.take_back()
            self._pool.reuse(slot)
            return False
        con = slot._con
        if con._protocol.is_in_transaction() or con._top_xact is not None:
            self._tell_of_transaction(slot, now)
        slot.take_back()
        return True

    def _tell_of_transaction(self, slot: Slot, now: float) -> None:
        self.rolled_back_total += 1
        held = slot.held(now)
        log.warning(
            "a connection was given back inside a transaction, which is rolled back",
            pool=self._pool.options.name, seconds=held.seconds, place=held.place, task=held.task, query=held.query,
        )  # fmt: skip

    async def clean(self, slot: Slot, bound: float) -> None:
        """Reset a connection within `bound` seconds and hand it on, or close it. Raises nothing but cancellation,
        through which the connection does not get lost either.
        """
        con = slot._con
        try:
            protocol = con._protocol
            if (
                self._reset is None
                and con._top_xact is None
                and not protocol._is_cancelling()
                and not protocol.is_in_transaction()
            ):
                con._listeners.clear()
                con._log_listeners.clear()
                await _send_reset(con, bound)
            else:
                async with asyncio.timeout(bound):
                    await self._clean_slowly(con)
        except asyncio.CancelledError:
            # The borrower is in a hurry, the connection is not.
            if slot.alive and not self._pool.is_closed():
                self._pool.spawn(self.clean(slot, bound))
            raise
        except Exception as error:
            self._pool.discard(slot, "it could not be reset", error)
        else:
            self._pool.reuse(slot)

    async def _clean_slowly(self, con: Any) -> None:
        if con._protocol._is_cancelling():
            await con._protocol._wait_for_cancellation(None)
        if con._protocol.is_in_transaction():
            await con._protocol.query("ROLLBACK", None)
        con._top_xact = None  # asyncpg would complain of it as well, without knowing where it began
        await con._reset()
        if self._reset is None:
            await _send_reset(con, None)
        else:
            await self._reset(con)


async def _send_reset(con: Any, bound: float | None) -> None:
    query = con.get_reset_query()
    if query:
        # past whatever observes queries: this one is not the application's
        await Protocol.query(con._protocol, query, bound)
