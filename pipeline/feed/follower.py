"""Follows the feed in every process, and says so when it cannot.

Owns: hearing broadcasts, noticing gaps, replaying, flushing. Knows nothing of what is done with events.

Anybody who may connect to the database may NOTIFY, so only what the leader's own session says is believed.

A connection that listens can look healthy and be deaf, so only a beat that came through the feed counts as a
sign of life. The order on connecting matters: listen first, and only then look where the feed stands; what
commits in between is heard or replayed, and perhaps both, never neither.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

import msgspec
import structlog

from pipeline.core.events import Batch, decode
from pipeline.core.feed import FeedSink, Recalls
from pipeline.core.recent import Rate
from pipeline.core.snapshot import Position
from pipeline.db.feed import FollowerSession, Standing
from pipeline.errors import DatabaseUnavailable
from pipeline.runtime import Health, wait_for

DOWN_SECONDS = 0.75  # without a beat (four a second) before the feed counts as down
DEAF_SECONDS = 3.0  # without a beat before the connection is given up and opened anew
MOST_RECALLED = 5_000  # batches of the past: 25 s at the pump's fastest; 0.1 s of a start, and a few MB
MOST_HEARD = 10_000  # payloads waiting to be taken in; beyond that they are dropped and replayed

log = structlog.get_logger("pgreflex.follower")


class Follower:
    """A Service. sinks hear everything, in the order of the feed."""

    name = "follower"

    def __init__(self, dsn: str | None, sinks: Sequence[FeedSink]) -> None:
        self.session = FollowerSession(dsn)
        self.epoch: str | None = None
        self.seq = 0
        self.up = False
        self.events_total = 0
        self.batches_total = 0
        self.flushes_total = 0
        self.reconnects_total = -1  # the first connection is none
        self.rate = Rate()
        self._sinks = sinks
        self._heard: deque[tuple[int, str]] = deque()
        self._leader = 0  # the process whose word counts
        self._overflowed = False
        self._news = asyncio.Event()
        self._stopping = False
        self._last_beat = 0.0

    async def start(self) -> None:
        self._heard.clear()
        await self.session.open_and_listen(self._hear)
        self.reconnects_total += 1

    async def run(self) -> None:
        """Follow until stopped. Raises when the connection is lost."""
        self._last_beat = time.monotonic()
        try:
            await self._catch_up()
            while not self._stopping:
                await self._wait()
                if self.session.lost.is_set():
                    raise DatabaseUnavailable("the connection that follows the feed was lost")
                await self._take_in()
                await self._watch_the_beat()
        finally:
            self._go_down("the connection is closed")
            await self.session.close()

    async def stop(self) -> None:
        self._stopping = True
        self._news.set()

    def healthy(self) -> Health:
        if self.up:
            return Health(True, f"at {self.seq}")
        return Health(False, "no beat of the feed; does any process pump?")

    def _hear(self, pid: int, payload: str) -> None:
        if len(self._heard) >= MOST_HEARD:
            self._heard.clear()
            self._overflowed = True
        self._heard.append((pid, payload))
        self._news.set()

    async def _wait(self) -> None:
        if self._heard or self._stopping:
            return
        self._news.clear()
        await wait_for(self._news, DOWN_SECONDS / 3)

    async def _take_in(self) -> None:
        if self._overflowed:
            self._overflowed = False
            await self._catch_up()
        while self._heard:
            pid, payload = self._heard.popleft()
            if pid != self._leader:
                await self._catch_up()  # tells who leads now
                if pid != self._leader:
                    continue
            try:
                batch = decode(payload)
            except (msgspec.DecodeError, ValueError, IndexError) as error:
                log.warning("a broadcast could not be read; replaying", error=str(error))
                await self._catch_up()
                continue
            await self._take(batch)

    async def _take(self, batch: Batch) -> None:
        if batch.epoch != self.epoch:
            await self._catch_up()
        elif batch.seq == batch.previous:
            if batch.seq > self.seq:
                await self._catch_up()
            if batch.epoch == self.epoch:
                self._beat(batch)
        elif batch.seq > self.seq:
            if batch.previous == self.seq and not batch.in_ring:
                self._deliver(batch)
            else:
                await self._catch_up()

    async def _catch_up(self) -> None:
        """Come to where the feed stands: by replay where the ring allows it, else by a flush."""
        standing = await self.session.standing()
        if standing is None or standing.epoch is None:
            return
        self._leader = standing.pid
        if self.epoch != standing.epoch:
            reason = "first connection" if self.epoch is None else "the server was restarted or replaced"
            await self._begin_anew(standing, reason)
            return
        while self.seq < standing.seq:
            rows = await self.session.replay(self.seq)
            batches = [decode(payload) for _seq, payload in rows]
            if not batches or batches[0].previous != self.seq:
                await self._begin_anew(standing, "more was missed than the feed remembers")
                return
            for batch in batches:
                self._deliver(batch)

    async def _begin_anew(self, standing: Standing, reason: str) -> None:
        """Go on from where the feed stands, after a flush, and tell what it remembers of the time before."""
        recalling = [sink for sink in self._sinks if isinstance(sink, Recalls)]
        batches = await self._remembered(standing) if recalling else []
        self.epoch, self.seq = standing.epoch, standing.seq
        self._flush(reason)
        for sink in recalling:
            sink.on_recall(str(standing.epoch), batches)

    async def _remembered(self, standing: Standing) -> list[Batch]:
        """The last batches of this epoch, without a gap, up to where the feed stands."""
        found: list[Batch] = []
        after = max(standing.seq - MOST_RECALLED, 0)
        while after < standing.seq:
            rows = await self.session.replay(after)
            if not rows:
                break
            found += [decode(payload) for _seq, payload in rows]
            after = rows[-1][0]
        if not found:  # not one since the ring was emptied, and the position was noted then
            return [Batch(str(standing.epoch), standing.seq, standing.seq, str(standing.position))]
        last: list[Batch] = []
        expected = standing.seq
        for batch in reversed(found):
            if batch.seq == expected and batch.epoch == standing.epoch:
                last.append(batch)
                expected = batch.previous
        return last[::-1]

    def _deliver(self, batch: Batch) -> None:
        self.seq = batch.seq
        self.batches_total += 1
        self.events_total += len(batch.events)
        self.rate.add(len(batch.events), time.monotonic())
        if batch.flush:
            self._flush("the outbox was full")
        for sink in self._sinks:
            sink.on_batch(batch)
        self._beat(batch)

    def _beat(self, batch: Batch) -> None:
        self._last_beat = time.monotonic()
        self.up = True
        if batch.position is not None and batch.seq == self.seq:
            position = Position.at(batch.position, batch.wal, batch.epoch)
            for sink in self._sinks:
                sink.on_position(position)

    def _flush(self, reason: str) -> None:
        self.flushes_total += 1
        log.info("flushing", reason=reason, epoch=self.epoch, seq=self.seq)
        for sink in self._sinks:
            sink.on_flush(reason)

    async def _watch_the_beat(self) -> None:
        silent = time.monotonic() - self._last_beat
        if silent > DOWN_SECONDS and self.up:
            self._go_down(f"no beat for {silent:.1f} s")
        if silent > DEAF_SECONDS:
            # either nobody pumps or this connection is deaf, and only a new one can tell
            await self.session.close()
            await self.session.open_and_listen(self._hear)
            self.reconnects_total += 1
            self._last_beat = time.monotonic()
            await self._catch_up()

    def _go_down(self, reason: str) -> None:
        if self.up and not self._stopping:
            log.warning("the feed is down", reason=reason)
        self.up = False
        for sink in self._sinks:
            sink.on_down(reason)
