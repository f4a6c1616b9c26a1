"""A pool of asyncpg that is fair, and explains itself.

Owns: the pool as others see it, its connections, and its end. Knows nothing of statements.

It is asyncpg's own Pool with another inside. The rules of who is served next are those of pipeline.core.pool_line:
a connection that is returned, checked or new goes to the first in line. New ones are opened by the pool, never by
the one who waits, so one who gives up takes no half-open connection away.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog
from asyncpg import pool as theirs

from pipeline.core.pool_fit import mark
from pipeline.core.pool_hosts import named
from pipeline.core.pool_options import PoolOptions
from pipeline.core.pool_report import Held, told
from pipeline.core.status import PoolStatus
from pipeline.db import pool_desk
from pipeline.db.connection import translate
from pipeline.db.pool_cleaner import Cleaner
from pipeline.db.pool_desk import Acquiring, Desk, Meter, NoMeter
from pipeline.db.pool_opener import Opener
from pipeline.db.pool_slot import Lent, Slot, caller
from pipeline.db.pool_watch import Watch
from pipeline.errors import PoolClosed

if TYPE_CHECKING:
    Base = asyncpg.Pool[asyncpg.Record]
else:
    Base = asyncpg.Pool

INSIDE = frozenset({__file__, pool_desk.__file__, theirs.__file__})  # whoever asks lies outside of these
AS_CONFIGURED: Any = object()  # since None means "for ever"
POLITE_SECONDS = 5.0
NEW, OPEN, CLOSING, CLOSED = "not open yet", "open", "about to close", "closed"
OPENING = "being opened by another task"

log = structlog.get_logger("pgreflex.pool")


class PoolIsClosed(PoolClosed, asyncpg.InterfaceError):  # type: ignore[misc]  # both have a hint, of the same meaning
    """PoolClosed, also for those who know asyncpg's pool only."""


class Pool(Base):
    """To be opened with `await` or `async with`. Whatever takes an asyncpg.Pool takes it.

    waits, holds: where each wait and each time of holding is counted. driver: whatever else asyncpg.Pool takes.
    """

    def __init__(
        self,
        dsn: str | None,
        options: PoolOptions,
        *,
        waits: Meter | None = None,
        holds: Meter | None = None,
        server_settings: Mapping[str, str] | None = None,
        **driver: Any,
    ) -> None:
        self.options = options
        name = named(dsn) or mark(options.name, options.max_size, secrets.token_hex(4))
        settings = {"application_name": name} | options.server_settings() | dict(server_settings or {})
        self.application_name = settings["application_name"]
        plain = {"connection_class": asyncpg.Connection, "record_class": asyncpg.Record}
        self._kept = {"timeout": options.connect_timeout, "server_settings": settings}
        super().__init__(
            dsn,
            min_size=options.min_size,
            max_size=options.max_size,
            max_queries=options.max_queries,
            max_inactive_connection_lifetime=options.idle_timeout,
            loop=None,
            **{**plain, **self._kept, **driver, "connect": self._dial},
        )
        self._own_connect = driver.get("connect") or asyncpg.connect
        self.state = NEW
        self.generation = 0
        self.discarded_total = 0
        self.loop: asyncio.AbstractEventLoop
        self.tasks: set[asyncio.Task[None]] = set()
        self.desk = Desk(self, waits or NoMeter(), driver.get("setup"))
        self.line = self.desk.line
        self.opener = Opener(self, random.Random())  # noqa: S311 - it is for jitter
        self.cleaner = Cleaner(self, holds or NoMeter(), driver.get("reset"))
        self.watch = Watch(self)
        self._slots: list[Slot] = self._holders  # type: ignore[attr-defined]  # asyncpg's name for it
        self._quiet: asyncio.Event | None = None  # while `close` waits for the last one

    async def _async__init__(self) -> Pool:
        if self.state is OPEN:
            return self
        if self.state is not NEW:
            raise self.refusal()
        self.state = OPENING
        self.loop = self._loop = asyncio.get_running_loop()
        try:
            await self.opener.begin()
        except BaseException:
            self.terminate()
            raise
        if self.state is not OPENING:  # it was closed meanwhile
            self.terminate()
            raise self.refusal()
        self.state = OPEN
        self._initialized = True
        self.desk.is_open = True
        self.watch.begin()
        return self

    def acquire(self, *, timeout: float | None = AS_CONFIGURED) -> Any:
        """A connection, to be awaited, and then given to `release`; or in `async with`.

        timeout: seconds; None: for ever; the pool's own when left out. Raises PoolExhausted, PoolUnreachable,
        PoolClosed, LoginFailed.
        """
        if timeout is AS_CONFIGURED:
            timeout = self.options.acquire_timeout
        return Acquiring(self.desk, timeout, caller(INSIDE))

    async def _acquire(self, timeout: float | None) -> Lent:
        return await self.desk.get(caller(INSIDE), timeout)

    async def release(self, connection: Any, *, timeout: float | None = None) -> None:
        """Give a connection back; it is rolled back and reset before anybody else gets it.

        timeout: seconds for that; the pool's own when left out. One that was given back already is left alone.
        """
        if type(connection) is not Lent or connection._holder._pool is not self:
            raise asyncpg.InterfaceError(
                f"Pool.release() received invalid connection: {connection!r} is not a member of this pool"
            )
        if connection._con is not None:
            await self.cleaner.take_back(connection, timeout or self.options.reset_timeout)

    def set_connect_args(self, dsn: str | None = None, **driver: Any) -> None:
        """Where new connections lead from now on; the timeouts and the name stay unless given."""
        super().set_connect_args(dsn, **{**self._kept, **driver})

    async def expire_connections(self) -> None:
        """Replace all connections: the idle ones now, the others once they are given back."""
        self.generation += 1
        for slot in list(self.line.idle):
            self.retire(slot)

    # The life of a connection

    async def connect_one(self) -> Any:
        """A new connection, set up by the application's `init`."""
        return await self._get_new_connection()  # type: ignore[attr-defined]

    async def _dial(self, dsn: str | None, **driver: Any) -> Any:
        turned, changed = self.opener.address(dsn, driver)
        return await self._own_connect(turned, **{**driver, **changed})

    def use(self, slot: Slot) -> None:
        """Take in a new connection."""
        self._slots.append(slot)
        slot._con.add_termination_listener(lambda _con: self.forget(slot))
        self.reuse(slot)

    def reuse(self, slot: Slot) -> None:
        """A connection is as good as new."""
        if not slot.alive:
            return
        if slot.generation != self.generation or slot._con._protocol.queries_count >= self.options.max_queries:
            self.retire(slot)
        else:
            self.line.give(slot, time.monotonic())
            self.tell_if_quiet()

    def forget(self, slot: Slot) -> None:
        """A connection is closed, whoever closed it."""
        if slot.alive:
            slot.alive = False
            self._slots.remove(slot)
            self.line.gone(slot)
            self.opener.pump()
            self.tell_if_quiet()

    def discard(self, slot: Slot, why: str, error: BaseException | None = None) -> None:
        """End a connection that cannot be trusted."""
        if slot.alive:
            self.discarded_total += 1
            reason = None if error is None else translate(error).message
            log.warning("a connection was closed", pool=self.options.name, why=why, error=reason)
        slot.take_back()
        slot._con.terminate()
        self.forget(slot)

    def retire(self, slot: Slot) -> None:
        """End a connection that has done its duty."""
        self.forget(slot)
        self.spawn(_say_goodbye(slot._con))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this beside everything else; it ends with the pool at the latest."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # The end

    def is_open(self) -> bool:
        return self.state in (OPEN, CLOSING)

    def is_closed(self) -> bool:
        return self.state is CLOSED

    async def close(self, *, timeout: float | None = AS_CONFIGURED) -> tuple[Held, ...]:  # type: ignore[override]
        """Refuse newcomers, serve those in line, wait for those who hold a connection, then close all of them.

        timeout: seconds, after which whoever still holds one is cut off; None: for ever. Returns who was cut off.
        Where several close it, the least patient decides.
        """
        if not self.is_open():
            self.terminate()
            return ()
        self.state, self.desk.is_open, self._closing = CLOSING, False, True
        cut: tuple[Held, ...] = ()
        try:
            async with asyncio.timeout(self.options.close_timeout if timeout is AS_CONFIGURED else timeout):
                await self._drain()
        except TimeoutError:
            cut = self.holders()
            log.warning("a pool was closed under its users", pool=self.options.name, holders=told(cut))
        else:
            await asyncio.gather(*(_say_goodbye(slot._con) for slot in self.slots()))
        finally:
            self.terminate()
        return cut

    async def _drain(self) -> None:
        self._quiet = self._quiet or asyncio.Event()
        while self.line.waiting or self.line.size > len(self.line.idle):
            self._quiet.clear()
            await self._quiet.wait()

    def tell_if_quiet(self) -> None:
        """Let `close` look whether the last one has left."""
        if self._quiet is not None:
            self._quiet.set()

    def terminate(self) -> None:
        """Close everything at once."""
        self.state, self.desk.is_open, self._closed, self._closing = CLOSED, False, True, False
        self.watch.end()
        for task in self.tasks:
            task.cancel()
        self.desk.fail_all(self.refusal)
        for slot in self.slots():
            slot.take_back()
            slot._con.terminate()
            self.forget(slot)

    def refusal(self) -> PoolIsClosed:
        """What newcomers are told while the pool is not open."""
        return PoolIsClosed(f'pool "{self.options.name}" is {self.state}')

    # What it tells

    def slots(self) -> list[Slot]:
        """All connections that there are."""
        return list(self._slots)

    def holders(self) -> tuple[Held, ...]:
        """Who has a connection now, the longest first."""
        now = time.monotonic()
        held = [slot.held(now) for slot in self._slots if slot.lent is not None]
        return tuple(sorted(held, key=lambda one: -one.seconds))

    def stats(self) -> PoolStatus:
        """How the pool does; see PoolStatus."""
        now, line, desk, cleaner = time.monotonic(), self.line, self.desk, self.cleaner
        lent = [now - slot.lent_at for slot in self._slots if slot.lent is not None]
        return PoolStatus(
            name=self.options.name,
            min_size=line.least,
            max_size=line.most,
            total=line.size,
            idle=len(line.idle),
            active=line.size - len(line.idle) - len(line.checking),
            waiting=len(line.waiting),
            opening=line.opening,
            acquired_total=desk.acquired_total,
            timeouts_total=desk.timeouts_total,
            opened_total=self.opener.opened_total,
            failed_total=self.opener.failed_total,
            discarded_total=self.discarded_total,
            rolled_back_total=cleaner.rolled_back_total,
            leaked_total=self.watch.leaked_total,
            reclaimed_total=cleaner.reclaimed_total,
            longest_held_seconds=round(max(lent), 3) if lent else None,
            wait=desk.waits.quantiles(now),
            held=cleaner.holds.quantiles(now),
        )


async def _say_goodbye(con: Any) -> None:
    with suppress(Exception):  # the connection is closed then, too
        await con.close(timeout=POLITE_SECONDS)
