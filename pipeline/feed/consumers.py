"""Hands every event to the consumers of one process of all, at least once.

Owns: each consumer's place in the feed, retries, saving. Knows nothing of how batches are made.

One process holds the consumers' lock; the others stand by. Consumers go at their own pace: the newest
batches come from the follower of this process, older ones are read from the ring, which is not emptied past
the slowest. Places are saved once a second and on stopping; a process that dies lets its successor repeat
what was handled since then.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence

import structlog

from pipeline.core.events import Batch, Event, decode
from pipeline.core.feed import EventConsumer
from pipeline.core.snapshot import Snapshot
from pipeline.db.connection import Database
from pipeline.db.feed import ConsumerSession, FeedStore
from pipeline.errors import PgreflexError
from pipeline.runtime import Health, describe, wait_for

STANDBY_SECONDS = 0.3
IN_MEMORY = 200  # batches, of some 300 events each
AT_ONCE = 100  # batches that a consumer is given in one call
DURABLE_AT_ONCE = 1_000  # events
SAVE_SECONDS = 1.0
ALIVE_SECONDS = 60.0  # places are saved this often although unchanged; see pipeline.rotate
MAX_BACKOFF_SECONDS = 30.0
DRAIN_SECONDS = 5.0

log = structlog.get_logger("pgreflex.consumers")


class Consumers:
    """A Service and a FeedSink: the follower of this process tells it what is new."""

    name = "consumers"

    def __init__(self, dsn: str | None, database: Database, consumers: Sequence[EventConsumer]) -> None:
        self.leading = False
        self._session = ConsumerSession(dsn)
        self._store = FeedStore(database)
        self._consumers = consumers
        self._troubles: dict[str, str] = {}
        self._stopping = asyncio.Event()
        self._reset()

    def _reset(self) -> None:
        self._lineage = ""
        self._places: dict[str, int] = {}
        self._saved: dict[str, int] = {}
        self._missed: set[str] = set()
        self._recent: deque[Batch] = deque(maxlen=IN_MEMORY)
        self._positions: deque[tuple[int, Snapshot]] = deque(maxlen=IN_MEMORY)
        self._forgotten = 0
        # one for each, since a consumer clears its own while another still has to look
        self._news = {consumer.name: asyncio.Event() for consumer in self._consumers}

    def _wake(self) -> None:
        for news in self._news.values():
            news.set()

    async def start(self) -> None:
        await self._session.open()

    async def run(self) -> None:
        try:
            while not self._stopping.is_set():
                if await self._session.try_consume() and await self._load():
                    await self._serve_all()
                else:
                    await self._pause(STANDBY_SECONDS)
        finally:
            self.leading = False
            await self._session.close()

    async def stop(self) -> None:
        self._stopping.set()
        self._wake()

    def healthy(self) -> Health:
        if self._troubles:
            name, trouble = next(iter(self._troubles.items()))
            return Health(False, f"{name} fails: {trouble}")
        return Health(True, "serving" if self.leading else "standing by")

    def on_batch(self, batch: Batch) -> None:
        if self.leading:
            if self._recent and batch.previous != self._recent[-1].seq:
                self._recent.clear()
            self._recent.append(batch)
            if batch.position is not None:
                self._positions.append((batch.seq, Snapshot.parse(batch.position)))
            self._wake()

    def on_position(self, position: Snapshot) -> None:
        """Places are counted in batches, not in positions."""

    def on_flush(self, reason: str) -> None:
        self._recent.clear()
        self._wake()

    def on_down(self, reason: str) -> None:
        """Nothing to do: what comes is taken from the ring or the follower, whichever has it."""

    async def _load(self) -> bool:
        """Find where each consumer stood; a new one begins now. False while nobody has ever led the feed."""
        standing = await self._session.standing()
        if standing is None:
            return False
        self._reset()
        self._lineage = standing.lineage
        known = await self._store.places()
        for consumer in self._consumers:
            lineage, seq = known.get(consumer.name, (standing.lineage, standing.seq))
            if lineage != standing.lineage:
                self._missed.add(consumer.name)
                seq = 0
            self._places[consumer.name] = min(seq, standing.seq)
        return True

    async def _serve_all(self) -> None:
        self.leading = True
        await self._save()  # a new consumer that dies before the first save must not begin anew, later
        async with asyncio.TaskGroup() as tasks:
            serving = [tasks.create_task(self._serve(consumer)) for consumer in self._consumers]
            await self._keep_places()
            self._wake()
            if serving:
                _done, late = await asyncio.wait(serving, timeout=DRAIN_SECONDS)
                for task in late:
                    task.cancel()
        await self._save()

    async def _keep_places(self) -> None:
        loop = asyncio.get_running_loop()
        alive = loop.time()
        while not self._stopping.is_set():
            await self._pause(SAVE_SECONDS)
            await self._session.fetchval("feed/alive")  # raises when the session, and the lock, are lost
            if loop.time() - alive > ALIVE_SECONDS:
                alive, self._saved = loop.time(), {}
            await self._save()

    async def _serve(self, consumer: EventConsumer) -> None:
        name = consumer.name
        told = name in self._missed
        if told:
            await self._miss(consumer, "the server crashed or was replaced")
            self._missed.discard(name)
        while True:
            self._news[name].clear()
            batches = await self._next(self._places[name])
            if not batches:
                if self._stopping.is_set():
                    return
                await self._news[name].wait()
                continue
            if batches[0].previous > self._places[name] and not told:
                await self._miss(consumer, "the feed's memory does not reach back far enough")
            told = False
            if any(batch.flush for batch in batches):
                await self._insist(consumer, [], "the outbox was full")
            await self._insist(consumer, [event for batch in batches for event in batch.events])
            self._places[name] = batches[-1].seq

    async def _miss(self, consumer: EventConsumer, reason: str) -> None:
        """Tell of a gap, and hand over what outlived it; some of that may come again."""
        await self._insist(consumer, [], reason)
        last = (0, 0)
        while True:
            found = await self._store.durable(last, DURABLE_AT_ONCE)
            await self._insist(consumer, [event for _id, event in found])
            if len(found) < DURABLE_AT_ONCE:
                return
            last = (found[-1][1].xid, found[-1][0])

    async def _insist(self, consumer: EventConsumer, events: Sequence[Event], missed: str = "") -> None:
        """Call the consumer until it does not raise. Cancelled on stop, when it does not come to an end."""
        backoff = 0.1
        while True:
            try:
                if missed:
                    await consumer.missed(missed)
                elif events:
                    await consumer.handle(events)
            except Exception as error:  # whatever a consumer raises means: again, later
                self._troubles[consumer.name] = describe(error)
                log.warning("a consumer failed; again later", consumer=consumer.name, error=describe(error))
                await asyncio.sleep(random.uniform(backoff / 2, backoff))  # noqa: S311 - jitter
                backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)
            else:
                self._troubles.pop(consumer.name, None)
                return

    async def _next(self, place: int) -> list[Batch]:
        """The batches behind `place`, from memory where that reaches back far enough, else from the ring."""
        if self._recent and self._recent[0].previous <= place <= self._recent[-1].seq:
            skip = place - self._recent[0].previous
            return [self._recent[n] for n in range(skip, min(skip + AT_ONCE, len(self._recent)))]
        rows = await self._store.replay(place)
        return [decode(payload) for _seq, payload in rows[:AT_ONCE]]

    async def _save(self) -> None:
        # one that has not yet been told what it missed keeps its old place, and is told by a successor
        places = {name: place for name, place in self._places.items() if name not in self._missed}
        if not places or places == self._saved:
            return
        await self._store.save_places(self._lineage, places)
        self._saved = places
        reached = min(self._places.values())
        position = None
        while self._positions and self._positions[0][0] <= reached:
            position = self._positions.popleft()[1]
        if position is not None:
            try:
                await self._store.forget_durable(position, self._forgotten)
                self._forgotten = position.xmin
            except PgreflexError as error:
                log.warning("could not forget durable events; again later", error=error.message)

    async def _pause(self, seconds: float) -> None:
        await wait_for(self._stopping, seconds)
