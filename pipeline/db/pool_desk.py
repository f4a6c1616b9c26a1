"""Where connections are asked of a pool: at once, or in line.

Owns: how one waits, gives up, and is told why in vain. Knows nothing of how connections are opened or cleaned.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import asyncpg

from pipeline.core.pool_line import Line
from pipeline.core.pool_report import Held, exhausted, unreachable
from pipeline.core.recent import Recent
from pipeline.core.timing_context import current_labels
from pipeline.db.connection import translate
from pipeline.db.pool_slot import Lent, Place, Slot
from pipeline.errors import PgreflexError, PoolExhausted, PoolUnreachable

if TYPE_CHECKING:
    from pipeline.db.pool import Pool

KNOWN_SECONDS = 0.05


class Meter(Protocol):
    """Where durations are counted, as a series of timings does."""

    def add(self, ms: float, *, error: bool = False) -> None:
        """Count one."""


class NoMeter:
    """Counts nothing."""

    def add(self, ms: float, *, error: bool = False) -> None:
        """Forget it."""


class Waiter:
    """One who waits in line; the connection comes as the result of `future`. since: by time.monotonic()."""

    __slots__ = ("future", "since", "ticket")

    def __init__(self, future: asyncio.Future[Slot], since: float) -> None:
        self.future = future
        self.since = since
        self.ticket = 0

    def handed(self) -> Slot | None:
        """What was handed over and not looked at."""
        future = self.future
        return future.result() if future.done() and not future.cancelled() and not future.exception() else None


def hand(waiter: Waiter, slot: Slot) -> bool:
    """False: that one was cancelled and does not know it yet."""
    if waiter.future.done():
        return False
    waiter.future.set_result(slot)
    return True


class Acquiring:
    """To be awaited, or used in `async with`, which gives the connection back at its end."""

    __slots__ = ("_desk", "_done", "_lent", "_place", "_timeout")

    def __init__(self, desk: Desk, timeout: float | None, place: Place | None) -> None:
        self._desk = desk
        self._timeout = timeout
        self._place = place
        self._lent: Lent | None = None
        self._done = False

    async def __aenter__(self) -> Lent:
        if self._done or self._lent is not None:
            raise asyncpg.InterfaceError("a connection is already acquired")
        lent = self._desk.at_once(self._place)
        if lent is None:
            lent = await self._desk.get(self._place, self._timeout)
        self._lent = lent
        return lent

    async def __aexit__(self, *_exc: object) -> None:
        self._done = True
        lent, self._lent = self._lent, None
        await self._desk.pool.release(lent)

    def __await__(self) -> Any:
        self._done = True
        return self._desk.get(self._place, self._timeout).__await__()


class Desk:
    """The desk of one pool. is_open: newcomers are served."""

    def __init__(self, pool: Pool, meter: Meter, setup: Callable[[Any], Any] | None) -> None:
        options = pool.options
        self.pool = pool
        self.line: Line[Waiter, Slot] = Line(
            hand, most=options.max_size, least=options.min_size, fresh=options.check_after
        )
        self.is_open = False
        self.waits = Recent()
        self.acquired_total = 0
        self.timeouts_total = 0
        self._meter = meter
        self._setup = setup
        self._known: tuple[Held, ...] = ()
        self._known_at = float("-inf")

    def at_once(self, place: Place | None) -> Lent | None:
        """A connection, if that takes no waiting of any kind."""
        if not self.is_open:
            raise self.pool.refusal()
        if self._setup is not None:
            return None
        now = time.monotonic()
        slot = self._take(now)
        return None if slot is None else self._lend(slot, place, now, 0.0)

    async def get(self, place: Place | None, timeout: float | None) -> Lent:
        """A connection, for which one stands in line if need be."""
        lent = self.at_once(place)
        if lent is not None:
            return lent
        began = now = time.monotonic()
        slot = self._take(now)
        if slot is None:
            slot = await self._in_line(began, timeout)
            now = time.monotonic()
        lent = self._lend(slot, place, now, (now - began) * 1000)
        if self._setup is not None:
            try:
                await self._setup(lent)
            except BaseException as error:
                self.pool.discard(slot, "the setup function failed", error)
                raise
        return lent

    def _take(self, now: float) -> Slot | None:
        while (slot := self.line.take(now)) is not None and not slot.is_connected():
            self.pool.forget(slot)
        return slot

    async def _in_line(self, began: float, timeout: float | None) -> Slot:
        pool, line = self.pool, self.line
        waiter = Waiter(pool.loop.create_future(), began)
        line.join(waiter)
        pool.opener.pump()
        timer = None if timeout is None else pool.loop.call_later(timeout, self._expire, waiter)
        try:
            while not (slot := await waiter.future).is_connected():
                pool.forget(slot)  # it died on its way
                waiter.future = pool.loop.create_future()
                line.rejoin(waiter)
                pool.opener.pump()
        except asyncio.CancelledError:
            self._in_vain(began, time.monotonic())
            line.leave(waiter)
            unused = waiter.handed()
            if unused is not None and unused.alive:
                line.give(unused, time.monotonic())
            pool.tell_if_quiet()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        return slot

    def _lend(self, slot: Slot, place: Place | None, now: float, waited_ms: float) -> Lent:
        self.acquired_total += 1
        self.waits.add(waited_ms, now)
        self._meter.add(waited_ms)
        lent = slot.lend(place, now, self.pool.watch.lost)
        slot.labels = current_labels()
        return lent

    def _expire(self, waiter: Waiter) -> None:
        if waiter.future.done():
            return
        self.line.leave(waiter)
        now = time.monotonic()
        self.timeouts_total += 1
        self._in_vain(waiter.since, now)
        waiter.future.set_exception(self._explain(now - waiter.since))
        self.pool.tell_if_quiet()

    def _in_vain(self, since: float, now: float) -> None:
        """Count a wait that brought nothing: those that did would tell of the lucky alone."""
        self.waits.add((now - since) * 1000, now)
        self._meter.add((now - since) * 1000, error=True)

    def _explain(self, waited: float) -> PgreflexError:
        name, line, opener = self.pool.options.name, self.line, self.pool.opener
        holders = self._known_holders()
        if opener.error is not None and len(holders) < line.most:
            reason = translate(opener.error).message
            error = PoolUnreachable(unreachable(name, waited, line.size, line.most, opener.failures, reason))
            error.__cause__ = opener.error
            return error
        return PoolExhausted(exhausted(name, waited, line.most, len(line.waiting), holders), holders)

    def _known_holders(self) -> tuple[Held, ...]:
        """As of a moment ago at most: of a hundred who give up together, none waits for the others' reports."""
        now = time.monotonic()
        if now >= self._known_at + KNOWN_SECONDS:
            self._known, self._known_at = self.pool.holders(), now
        return self._known

    def fail_all(self, why: Callable[[], Exception]) -> None:
        """Nobody in line can be served."""
        waiting = list(self.line.waiting)
        self.line.waiting.clear()
        for waiter in waiting:
            if not waiter.future.done():
                waiter.future.set_exception(why())
