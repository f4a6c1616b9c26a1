"""The pump: reads what triggers wrote and broadcasts it.

Owns: leading, the rounds, beats, turning the outbox. Knows nothing of what is done with events.

One process of all leads; the others stand by and try for the leader's lock. A round reads everything that
committed since the last position, packs it into batches and broadcasts them; the batches and the new position
go into the ring in the same transaction as their NOTIFY, so a leader that dies in between has either sent
both or neither, and the next one goes on from there. See sql/feed/read.sql for why nothing is skipped, and
pipeline.feed.doorbell for why nothing is slept through.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec
import structlog

from pipeline.core.events import Batch, Parcel, encode, pack
from pipeline.core.snapshot import BEGINNING, Snapshot
from pipeline.core.status import WatchStatus
from pipeline.db.connection import Database
from pipeline.db.feed import Backlog, BellSession, FeedStore, LeaderSession, Reading
from pipeline.errors import DatabaseUnavailable, PgreflexError
from pipeline.feed.doorbell import Doorbell
from pipeline.runtime import Health, wait_for

STANDBY_SECONDS = 0.3  # between two tries for the leader's lock; a dead leader is replaced within this
RIGHTS_SECONDS = 2.0  # between two looks whether the role may lead; below the session's limit on idling
POLL_SECONDS = 0.003  # between two rounds while awake; half of it is the mean delay under load
BUSY_SECONDS = 0.025  # between two when a round found BUSY_EVENTS: a round has a price of its own
BUSY_EVENTS = 20
IDLE_SECONDS = 0.1  # without events before falling asleep
BEAT_SECONDS = 0.25  # four beats within the second that readers may be stale
FLUSH_SECONDS = 0.1  # between two flushes while the outbox is full
CHECK_SECONDS = 5.0  # between two looks at the watched tables
ROTATE_SECONDS = 1.0
TURN_BYTES = 16 * 1024 * 1024  # the outbox is turned at this size
TURN_SECONDS = 60.0  # or at this age
READ_LIMIT = 5_000  # events a read; with a backlog a round takes several
MOST_SENT = 500  # batches whose delivery can still be measured
QUEUE_ALARM = 0.5  # of the notification queue in use; from here on the pump polls and writers never ring
QUEUE_CALM = 0.25
LONGEST_POSITION = 4_000  # characters; hundreds of writers at once make a position too long to send

log = structlog.get_logger("pgreflex.pump")


class Sent(msgspec.Struct, frozen=True):
    """When the events of a batch were read, by this process's monotonic clock, and how old each was then."""

    at: float
    ages_ms: Sequence[float]


class Pump:
    """A Service. two_phase: the bell stays silent and the pump polls, since NOTIFY forbids PREPARE TRANSACTION."""

    name = "pump"

    def __init__(self, dsn: str | None, database: Database, *, two_phase: bool = False) -> None:
        self.store = FeedStore(database)
        self.session = LeaderSession(dsn)
        self.bell = Doorbell(BellSession(dsn), self.store.cancel)
        self.leading = False
        self.position = BEGINNING
        self.wal: int | None = None  # see Position
        self.seq = 0
        self.events_total = 0
        self.batches_total = 0
        self.flushes_total = 0
        self.backlog: Backlog | None = None
        self.watches: tuple[WatchStatus, ...] = ()
        self.sent: dict[int, Sent] = {}
        self._two_phase = two_phase
        self._silent = two_phase
        self._may_lead = True
        self._stopping = asyncio.Event()
        self._epoch = ""
        self._lineage = ""
        self._term = 0
        self._flush_until = 0
        self._last_round = 0.0
        self._reading_since = 0.0
        self._seen_at = 0.0

    async def start(self) -> None:
        await self.session.open_and_listen(self.bell.ring)

    async def run(self) -> None:
        """Stand by, then lead, until stopped. Raises when a session is lost or another process leads."""
        try:
            self._may_lead = await self.session.may_lead()
            if not self._may_lead:
                log.info("this role may follow the feed but not pump it; another process has to")
            while not self._stopping.is_set():
                if not self._may_lead:
                    await self._pause(RIGHTS_SECONDS)
                    self._may_lead = await self.session.may_lead()
                elif await self.session.try_lead():
                    await self._lead()
                else:
                    await self._pause(STANDBY_SECONDS)
        finally:
            self.leading = False
            await self.bell.close()
            await self.session.close()

    async def stop(self) -> None:
        self._stopping.set()
        self.bell.rung.set()

    def healthy(self) -> Health:
        if not self.leading:
            return Health(True, "standing by" if self._may_lead else "this role may not pump")
        silent = time.monotonic() - self._last_round
        if silent > 4 * BEAT_SECONDS:
            return Health(False, f"no round for {silent:.1f} s")
        return Health(True, "leading, asleep" if self.bell.asleep else "leading")

    async def _lead(self) -> None:
        self._term = await self.session.take_over()
        standing = await self.session.standing()
        if standing is None or standing.epoch is None:
            raise DatabaseUnavailable("the feed's leader row vanished; the server may be restarting")
        self._epoch, self._lineage, self.seq = standing.epoch, standing.lineage, standing.seq
        self.position, self.wal, self._flush_until = standing.position, None, standing.flush_until
        self._silent = self._two_phase
        await self.session.silence_bell(self._silent)
        await self.bell.open()
        self.leading = True
        log.info("leading the feed", term=self._term, epoch=self._epoch, seq=self.seq)
        async with asyncio.TaskGroup() as tasks:
            bell = tasks.create_task(self.bell.run())
            keeping = tasks.create_task(self._keep_house())
            await self._pump()
            keeping.cancel()
            bell.cancel()

    async def _pump(self) -> None:
        """Rounds until stopped; the last one after the stop, so that what is committed goes out."""
        active = beat = rotated = time.monotonic()
        while True:
            stopping = self._stopping.is_set()
            asleep = self.bell.asleep
            found = await self._round()
            now = self._last_round = time.monotonic()
            if stopping:
                return
            if found:
                active = now
                await self.bell.wake()
            elif self._silent:
                await self.bell.wake()
            elif now - active > IDLE_SECONDS:
                self.bell.doze()
            if now - beat >= BEAT_SECONDS:
                beat = now
                await self._beat()
            if now - rotated >= ROTATE_SECONDS:
                rotated = now
                await self._rotate()
            if self._flushing():
                await self._wait_for_bell(FLUSH_SECONDS)
            elif asleep and not found and self.bell.asleep:
                await self._wait_for_bell(BEAT_SECONDS - (time.monotonic() - beat))
            else:
                await self._wait_for_bell(BUSY_SECONDS if found >= BUSY_EVENTS else POLL_SECONDS)

    async def _round(self) -> int:
        """Read and broadcast everything up to now; returns how many events there were."""
        self.bell.rung.clear()
        self._seen_at, self._reading_since = self._reading_since, time.monotonic()
        reading = await self.session.read(self.position, None, (0, 0), READ_LIMIT)
        total, upto, wal = 0, reading.upto, reading.wal
        await self._flush_if_full(reading)
        while True:
            last = len(reading.lines) < READ_LIMIT
            await self._broadcast(reading, upto if last else None, wal)
            total += len(reading.lines)
            if last:
                break
            reading = await self.session.read(self.position, upto, reading.last, READ_LIMIT)
        self.position, self.wal = upto, wal
        return total

    async def _broadcast(self, reading: Reading, position: Snapshot | None, wal: int | None) -> None:
        if not reading.lines:
            return
        read_at = time.monotonic()
        at = None if position is None else sendable(position)
        parcels = pack(reading.lines, epoch=self._epoch, after=self.seq, position=at, wal=wal)
        # what an earlier round did not see had not been committed then: an older event waited for its own writer
        longest = (read_at - self._seen_at) * 1000
        self._note_sent(parcels, [min(age, longest) for age in reading.ages_ms], read_at)
        await self._send(parcels, position)
        self.events_total += len(reading.lines)

    def _note_sent(self, parcels: list[Parcel], ages_ms: Sequence[float], read_at: float) -> None:
        start = 0
        for parcel in parcels:
            end = start + parcel.events
            self.sent[parcel.seq] = Sent(read_at, ages_ms[start:end])
            start = end
        while len(self.sent) > MOST_SENT:
            del self.sent[next(iter(self.sent))]

    async def _send(self, parcels: list[Parcel], position: Snapshot | None) -> None:
        payloads = [parcel.payload for parcel in parcels]
        notices = [parcel.notice for parcel in parcels]
        await self.session.broadcast(self._term, self._lineage, self.seq + 1, payloads, notices, position)
        self.seq = parcels[-1].seq
        self.batches_total += len(parcels)

    async def _flush_if_full(self, reading: Reading) -> None:
        """While writers may be writing nothing, every commit could be one that nobody was told of."""
        if reading.full:
            self._flush_until = max(self._flush_until, reading.upto.xmax + 1)
        if self._flushing() and reading.upto != self.position:
            self.flushes_total += 1
            flush = encode(Batch(self._epoch, self.seq + 1, self.seq, flush=True))
            await self._send([Parcel(self.seq + 1, 0, flush, flush)], None)
        if reading.full:
            await self._rotate()

    def _flushing(self) -> bool:
        return self.position.xmin < self._flush_until

    async def _beat(self) -> None:
        beat = Batch(self._epoch, self.seq, self.seq, sendable(self.position), wal=self.wal)
        await self.session.beat(self._term, encode(beat))
        await self.bell.touch()

    async def _rotate(self) -> None:
        if await self.session.rotate(self._term, self.seq, self.position, TURN_BYTES, TURN_SECONDS):
            standing = await self.session.standing()
            if standing is not None:
                self._flush_until = max(self._flush_until, standing.flush_until)

    async def _keep_house(self) -> None:
        """Look after the watched tables; what goes wrong here is told, and tried again."""
        while True:
            try:
                for tag, finding in await self.store.check_watches():
                    log.info("a watched table changed", table=tag, finding=finding)
                self.watches = await self.store.watched()
                self.backlog = await self.store.backlog()
                await self._heed_queue(self.backlog.queue_usage)
            except PgreflexError as error:
                log.warning("could not look after the watched tables", error=error.message)
            await self._pause(CHECK_SECONDS)

    async def _heed_queue(self, usage: float) -> None:
        """A listener that is stuck fills the queue, and a writer that rang into a full one would fail."""
        silent = self._two_phase or usage > (QUEUE_CALM if self._silent else QUEUE_ALARM)
        if silent != self._silent:
            await self.store.silence_bell(silent)
            self._silent = silent
            log.warning(
                "writers ring no more, the notification queue fills up" if silent else "writers may ring again",
                queue_usage=round(usage, 3),
            )

    async def _wait_for_bell(self, seconds: float) -> None:
        await wait_for(self.bell.rung, max(seconds, 0))

    async def _pause(self, seconds: float) -> None:
        await wait_for(self._stopping, seconds)


def sendable(position: Snapshot) -> str | None:
    """The text of a position, or None when too many writers were busy to name them all."""
    text = str(position)
    return text if len(text) <= LONGEST_POSITION else None
