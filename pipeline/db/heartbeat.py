"""The heartbeat of a worker, sent from a thread of its own.

Owns: the thread, its loop, its connection. Knows nothing of jobs.

Why a thread: tasks share the main loop, and a task that computes for twenty seconds stops everything there. A
heartbeat on that loop would stop too, and the worker's jobs would be run a second time elsewhere although it
lives. Why the thread also watches the main loop: a process whose loop hangs for good lives, and works on
nothing; once the loop has not turned for `patience` seconds the beats end, and others rescue the jobs.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence

import structlog

from pipeline.db.connection import OwnConnection, connect, translated
from pipeline.db.pooler import transacted
from pipeline.db.statements import statement
from pipeline.errors import PgreflexError

BEAT_SECONDS = 3.0
BEAT_TIMEOUT_SECONDS = 5.0
PATIENCE_SECONDS = 60.0

log = structlog.get_logger("pgreflex.heartbeat")


class Heartbeat:
    """Tells the server every BEAT_SECONDS that worker number `worker` lives.

    steady_since: since when no beat has failed, on the monotonic clock; None while they fail. turned: when
    the main loop last turned, on the monotonic clock. last: when a beat last arrived, on the same clock, or
    None.
    """

    def __init__(
        self,
        dsn: str | None,
        worker: int,
        name: str,
        queues: Sequence[str],
        turned: Callable[[], float],
        *,
        patience: float = PATIENCE_SECONDS,
        every: float = BEAT_SECONDS,
        steady_since: float = -math.inf,
    ) -> None:
        self.last: float | None = None
        self.steady_since: float | None = steady_since
        self._dsn = dsn
        self._args = (worker, name, list(queues))
        self._turned = turned
        self._patience = patience
        self._every = every
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._main, name="pgreflex-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    async def stop(self) -> None:
        """End, and wait until no beat is under way: the worker's row may then be deleted."""
        self._stopped.set()
        await asyncio.to_thread(self._thread.join, BEAT_TIMEOUT_SECONDS)

    def _main(self) -> None:
        asyncio.run(self._beat())

    async def _beat(self) -> None:
        connection: OwnConnection | None = None
        warned = False
        while not self._stopped.is_set():
            still = time.monotonic() - self._turned()
            if still > self._patience:
                if not warned:
                    log.error("the event loop hangs; its jobs are left to other workers", seconds=round(still))
                warned = True
            else:
                warned = False
                connection = await self._send(connection)
            # a wait on the event and not on the loop, so that `stop` ends it at once
            self._stopped.wait(self._every)
        if connection is not None:
            connection.terminate()

    async def _send(self, connection: OwnConnection | None) -> OwnConnection | None:
        try:
            if connection is None or connection.is_closed():
                connection = await connect(self._dsn, purpose="heartbeat")
            with translated():
                async with transacted(connection):
                    await connection.execute(statement("jobs/beat"), *self._args, timeout=BEAT_TIMEOUT_SECONDS)
            self.last = time.monotonic()
            if self.steady_since is None:
                self.steady_since = self.last
        except PgreflexError as error:
            self.steady_since = None
            log.warning("a heartbeat did not arrive", error=error.message)
            if connection is not None:
                connection.terminate()
            return None
        return connection
