"""Opens the connections of a pool, and checks those that lay idle.

Owns: when and how fast that happens, and what is made of failures. Knows nothing of who waits.

While the server cannot be reached, one attempt follows the other after a wait that doubles up to LONGEST_PAUSE and
is left to chance, so that a thousand processes whose server restarts do not all come back in the same moment. The
opener never gives up; those who wait do so themselves, each in his own time.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

import structlog

from pipeline.core.pool_fit import Fit, Room, fit
from pipeline.core.pool_hosts import Dial
from pipeline.core.retry import Backoff
from pipeline.db.connection import translate, translated
from pipeline.db.pool_slot import Slot
from pipeline.db.pooler import REFUSED
from pipeline.db.statements import statement
from pipeline.errors import Busy, DatabaseUnavailable, LoginFailed, PoolTooLarge, ServerNotSuitable

if TYPE_CHECKING:
    from pipeline.db.pool import Pool

PARALLEL = 4  # connections opened at a time; a server forks for each
CHECK_SECONDS = 2.0  # a connection that does not answer for so long is as good as dead
MEASURE_SECONDS = 5.0
LONGEST_PAUSE = 1.0  # seconds; a client that waits five must not sleep through the server's return
REMIND_SECONDS = 60.0
ROUNDS = 2  # of all hosts, while the pool is opened

log = structlog.get_logger("pgreflex.pool")


class Opener:
    """Does what the pool's line asks for. failures: attempts in a row that failed; error: the last one's."""

    def __init__(self, pool: Pool, rng: random.Random) -> None:
        self.failures = 0
        self.error: Exception | None = None
        self.opened_total = 0
        self.failed_total = 0
        self._pool = pool
        self._rng = rng
        self._pauses = Backoff(first=0.05, factor=2.0, longest=LONGEST_PAUSE, jitter=1.0)
        self._told_at = float("-inf")
        self._host = 0
        self._hosts = 1

    async def begin(self) -> None:
        """Open the least number of connections, at least one to see that it can be done.

        Raises what the first attempt ends with, as one of our errors, and PoolTooLarge.
        """
        line = self._pool.line
        line.opening += 1
        with translated():
            try:
                slot = await self._first()
            except BaseException:
                line.not_opened()
                raise
        line.opened()
        self._pool.use(slot)
        if (found := await self._measure(slot._con)).fatal:
            raise PoolTooLarge(found.problem or "")
        line.parallel = PARALLEL
        self.pump()
        while line.opening and not self.failures:
            await asyncio.wait(self._pool.tasks, return_when=asyncio.FIRST_COMPLETED)

    async def _first(self) -> Slot:
        while True:
            try:
                slot = await self._connect()
            except Exception as error:
                if REFUSED in str(error):
                    raise ServerNotSuitable(
                        f"a connection pooler does not take what was asked of the session: {error}",
                        hint="Leave that option out, or name it in the pooler's ignore_startup_parameters.",
                    ) from error
                self._host += 1
                self.failures += 1
                if self._hosts < 2 or self.failures >= ROUNDS * self._hosts:
                    raise
            else:
                self.failures = 0
                return slot

    def address(self, dsn: str | None, driver: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Where to connect now: of several hosts first to the one that served last, then to the next."""
        dial = Dial(dsn, driver)
        self._hosts = dial.hosts
        if dial.hosts < 2:
            return dsn, {}
        turned, changed = dial.turned(self._host)
        return turned, {**changed, "timeout": dial.seconds(self.failures, self._pool.options.connect_timeout)}

    def pump(self) -> None:
        """Begin whatever the line wants now."""
        pool = self._pool
        if pool.is_closing() and not pool.line.waiting:
            return
        while (slot := pool.line.check()) is not None:
            pool.spawn(self._check(slot))
        for _ in range(pool.line.open()):
            pool.spawn(self._open())

    async def _open(self) -> None:
        line = self._pool.line
        try:
            if self.failures:
                await asyncio.sleep(self._pauses.delay(self.failures, self._rng))
            slot = await self._connect()
        except Exception as error:
            line.not_opened()
            self._failed(error)
        except BaseException:
            line.not_opened()
            raise
        else:
            line.opened()
            self._succeeded()
            self._pool.use(slot)
        self.pump()

    async def _connect(self) -> Slot:
        generation = self._pool.generation
        con: Any = await self._pool.connect_one()
        if con.is_closed():
            raise DatabaseUnavailable("the connection was closed while it was set up")
        self.opened_total += 1
        return Slot(con, self._pool, generation)

    def _succeeded(self) -> None:
        if self.failures:
            log.info("connections can be opened again", pool=self._pool.options.name, failures=self.failures)
        self.failures, self.error = 0, None
        self._told_at = float("-inf")
        self._pool.line.parallel = PARALLEL

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self.failed_total += 1
        self._host += 1
        self.error = error
        line = self._pool.line
        line.parallel = 1  # whether the server is back, one can find out for all
        now, ours = time.monotonic(), translate(error)
        if now - self._told_at >= REMIND_SECONDS:
            self._told_at = now
            log.warning(
                "a connection could not be opened; it is tried again",
                pool=self._pool.options.name, error=ours.message, failures=self.failures,
            )  # fmt: skip
        passing = isinstance(ours, DatabaseUnavailable | Busy) and not isinstance(ours, LoginFailed)
        if not passing and not line.size:  # otherwise those in line may still have one that is given back
            self._pool.desk.fail_all(lambda: _caused(translate(error), error))

    async def _check(self, slot: Slot) -> None:
        """See whether a connection that lay idle lives, and then give it to whoever is first in line."""
        pool = self._pool
        try:
            standby = await slot._con.fetchval(statement("pool/check"), timeout=CHECK_SECONDS)
        except Exception as error:
            pool.discard(slot, "it lay idle and does not answer", error)
        except BaseException:
            pool.discard(slot, "its check was given up")
            raise
        else:
            if standby and slot.wants_primary():
                pool.discard(slot, "its server is a standby now")
            elif slot.alive:
                pool.reuse(slot)

    async def _measure(self, con: Any) -> Fit:
        """Whether the pool fits into the server; what does not is told in the log."""
        pool, options = self._pool, self._pool.options
        try:
            rows = await con.fetch(statement("pool/room"), pool.application_name, timeout=MEASURE_SECONDS)
        except Exception as error:  # it is advice; a role that may not see enough does without
            log.debug("the room of the server is unknown", pool=options.name, error=translate(error).message)
            return Fit()
        if any(row["backend"] != con.get_server_pid() for row in rows):
            return Fit()  # a pooler is in between, whose limits are others
        fits = [
            fit(
                options.name,
                options.max_size,
                Room(row["most"], row["reserved"], row["taken"], tuple(row["pools"] or ()), row["whose"]),
            )
            for row in rows
        ]
        worst = next((one for one in fits if one.fatal), None) or next((one for one in fits if one.problem), Fit())
        if worst.problem and not worst.fatal:
            log.warning(worst.problem, hint="Lower max_size, or raise the limit.")
        return worst


def _caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error
