"""A worker's sleep: whoever adds a job rings only while some worker of its queue sleeps.

Owns: one connection, and the advisory lock of each queue in which this worker sleeps; see pipeline.ring_workers.
Knows neither jobs nor when to sleep.
"""

from __future__ import annotations

import asyncio
import time

from pipeline.db.connection import OwnConnection, connect_session, translated
from pipeline.db.statements import statement
from pipeline.errors import PgreflexError, TransactionPooler

OTHERS_SECONDS = 0.5


class Sleeping:
    """The sleep of one worker. dsn: where its queue is; a transaction pooler has no sessions to hold a lock."""

    def __init__(self, dsn: str | None) -> None:
        self._dsn = dsn
        self._connection: OwnConnection | None = None
        self._queues: set[str] = set()
        self._others: dict[str, float] = {}
        self._never = False
        self._turn = asyncio.Lock()  # each queue's feeder comes here, and there is one connection

    async def fall_asleep(self, queue: str) -> bool:
        """Take the queue's lock, unless another sleeper has it. False when jobs are being added at this
        moment: whoever sleeps then may not be called.

        True means that every transaction which did not ring has ended: look once more, then sleep.
        """
        if self._never:
            return False
        async with self._turn:
            return await self._fall_asleep(queue)

    async def _fall_asleep(self, queue: str) -> bool:
        try:
            if self._connection is None or self._connection.is_closed():
                self._queues.clear()
                self._connection = await connect_session(self._dsn, purpose="bell")
            if queue in self._queues:
                return True
            with translated():
                whose = await self._connection.fetchval(statement("jobs/fall_asleep"), queue)
        except TransactionPooler:
            self._never = True
            return False
        except PgreflexError:
            await self.close()
            return False
        if whose == "mine":
            self._queues.add(queue)
        elif whose == "others":
            self._others[queue] = time.monotonic() + OTHERS_SECONDS
        return whose is not None

    def rung(self, queue: str) -> bool:
        """Whether producers still ring, as far as it can be known here: another sleeper's lock is believed in for
        OTHERS_SECONDS."""
        if self._connection is None or self._connection.is_closed():
            return False
        return queue in self._queues or time.monotonic() < self._others.get(queue, 0.0)

    async def wake(self, queue: str) -> None:
        """Give the lock back: from now on nobody rings."""
        async with self._turn:
            if queue not in self._queues or self._connection is None:
                return
            self._queues.discard(queue)
            try:
                with translated():
                    await self._connection.fetchval(statement("jobs/wake_up"), queue)
            except PgreflexError:
                await self.close()

    async def close(self) -> None:
        """Give all locks back."""
        connection, self._connection = self._connection, None
        self._queues.clear()
        if connection is not None:
            connection.terminate()
