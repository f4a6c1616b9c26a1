"""Looks after a pool once a second: who holds a connection for too long or has lost it, and what lies idle.

Owns: the rhythm, and what is said of borrowers. Knows nothing of how a connection is reset.

A connection is taken back from its borrower only when it is certain that nobody can use it: nothing refers to it
any more, no query and no statement either, or nothing but the frames of a task that failed. When a task ended and
others may still have the connection that it took, it is reported and stays with them: it may have been handed on.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from pipeline.db.pool_slot import Lent, Slot

if TYPE_CHECKING:
    from pipeline.db.pool import Pool

EVERY = 1.0
GONE = "nothing refers to it any more"
GRACE = 2.0  # for the last steps of a task, and of those who wait for it

log = structlog.get_logger("pgreflex.pool")


class Watch:
    """The rounds of one pool, which it does not keep alive. leaked_total: connections held for too long."""

    def __init__(self, pool: Pool) -> None:
        self.every = EVERY
        self.grace = GRACE
        self.leaked_total = 0
        self._pool = weakref.ref(pool)
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        pool = self._pool()
        if pool is not None and not pool.is_closed():
            self._timer = pool.loop.call_later(self.every, self._round)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def lost(self, ref: weakref.ref[Lent]) -> None:
        """A stand-in is gone without having been returned; called in any thread."""
        pool = self._pool()
        if pool is not None:
            with suppress(RuntimeError):  # the loop is closed, and its connections with it
                pool.loop.call_soon_threadsafe(self._reclaim_lost, ref)

    def _reclaim_lost(self, ref: weakref.ref[Lent]) -> None:
        pool = self._pool()
        if pool is not None:
            for slot in pool.slots():
                if slot.lent is ref and slot.is_lost():  # if not, the next rounds look again
                    self._reclaim(pool, slot, GONE)

    def _round(self) -> None:
        pool = self._pool()
        if pool is None:
            return
        try:
            self._look_round(pool, time.monotonic())
        finally:
            self.begin()

    def _look_round(self, pool: Pool, now: float) -> None:
        for slot in pool.slots():
            if slot.lent is not None:
                self._look(pool, slot, now)
        if pool.options.idle_timeout:
            for slot in pool.line.tired(now, pool.options.idle_timeout):
                pool.retire(slot)
        pool.opener.pump()

    def _look(self, pool: Pool, slot: Slot, now: float) -> None:
        if slot.is_lost():
            self._reclaim(pool, slot, GONE)
            return
        if slot.ended():
            if slot.ended_at is None:
                slot.ended_at = now
            elif now - slot.ended_at >= self.grace and not slot.examined:
                slot.examined = True  # once, since looking through all objects may take tens of milliseconds
                if slot.is_forsaken():
                    self._reclaim(
                        pool, slot, "the task that took it has failed, and only its traceback refers to it"
                    )
                    return
        longest = pool.options.leak_after
        if longest is not None and not slot.told and now - slot.lent_at >= longest:
            slot.told = True
            self.leaked_total += 1
            held = slot.held(now)
            log.warning(
                "a connection is held for long; is it given back on every path?",
                pool=pool.options.name, seconds=held.seconds, place=held.place, task=held.task,
                task_ended=held.ended, state=held.state, query=held.query, **_labels(held.labels),
            )  # fmt: skip

    def _reclaim(self, pool: Pool, slot: Slot, why: str) -> None:
        held = slot.held(time.monotonic())
        log.warning(
            "a connection was never given back, and is taken back",
            pool=pool.options.name, why=why, seconds=held.seconds, place=held.place, task=held.task,
            query=held.query, **_labels(held.labels),
        )  # fmt: skip
        pool.cleaner.reclaim(slot)


def _labels(labels: dict[str, str]) -> dict[str, str]:
    return {f"label_{name}": value for name, value in labels.items()}
