"""What changes, as server-sent events (/api/v1/changes), so that programs in any language can keep caches.

Owns: the streams, where each stands, and the way back after an interruption. Knows nothing of how the feed works.

A program keeps its cache right with three rules. Drop everything at `flush`. Drop at `changed` what depends on
the tags. And serve nothing that was read while a change of its tags came in, unless its snapshot sees that
transaction. `position` says how far all of this has come: everything that this snapshot sees has been told.

Each `changed` carries an id. A reader that comes back with it in Last-Event-ID gets what it missed from the feed's
memory, which reaches back a minute at least, or a `flush`. One that cannot keep up is cut off, and comes back the
same way, so nothing is ever left out in silence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager

import msgspec
from aiohttp import hdrs, web

from pipeline.core import invalidation
from pipeline.core.events import Batch, Event, decode
from pipeline.core.snapshot import Snapshot
from pipeline.errors import Busy
from pipeline.web.api import KEEP_ALIVE_SECONDS, MOST_STREAMS, RETRY_MS, event_frame, open_event_stream

MOST_WAITING = 1_000  # batches of up to some 300 changes; a reader that is further behind is cut off
POSITION_SECONDS = 0.5

Replay = Callable[[int], Awaitable[Sequence[tuple[int, str]]]]
"""The batches that the feed remembers behind a number, as (number, wire form), some at a time."""


class _Told(msgspec.Struct, frozen=True):
    """A batch as readers get it. changes: of each "tag" or "prefix", what it is, and the transaction."""

    epoch: str
    seq: int
    previous: int
    changes: tuple[tuple[str, str, int], ...]

    @classmethod
    def of(cls, batch: Batch) -> _Told:
        changes = tuple(change for event in batch.events for change in _changes(event))
        return cls(batch.epoch, batch.seq, batch.previous, changes)


def _changes(event: Event) -> Iterator[tuple[str, str, int]]:
    for tag in event.changed():
        yield "tag", tag, event.xid
    if event.op == "e" and event.name == invalidation.CHANNEL:
        said = invalidation.parse(event.payload) or invalidation.Invalidation()
        for tag in said.tags:
            yield "tag", tag, event.xid
        if said.prefix is not None:
            yield "prefix", said.prefix, event.xid


class _Reader:
    """One stream. tables: the tags, with all below them, that it asked for; none means all."""

    def __init__(self, tables: Iterable[str]) -> None:
        self.waiting: asyncio.Queue[_Told | bytes | None] = asyncio.Queue()
        self.cut_off = False
        self._tables = frozenset(tables)

    def tell(self, what: _Told | bytes) -> None:
        if self.cut_off:
            return
        if self.waiting.qsize() >= MOST_WAITING:
            self.end()
        else:
            self.waiting.put_nowait(what)

    def end(self) -> None:
        self.cut_off = True
        self.waiting.put_nowait(None)

    def frame(self, told: _Told) -> bytes:
        """The event of a batch, or nothing where it has nothing for this reader."""
        changes = [
            {kind: name, "xid": xid}
            for kind, name, xid in told.changes
            if not self._tables or kind == "prefix" or name.partition(":")[0] in self._tables
        ]
        if not changes:
            return b""
        return event_frame({"changes": changes}, kind="changed", id_=f"{told.epoch}/{told.seq}")


class ChangeStreams:
    """GET /api/v1/changes, and the FeedSink that fills it."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._readers: set[_Reader] = set()
        self._epoch = ""
        self._position = b""
        self._position_told = 0.0

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_get("/api/v1/changes", self.stream)

    def close(self) -> None:
        """End every stream."""
        for reader in self._readers:
            reader.end()

    def on_batch(self, batch: Batch) -> None:
        self._epoch = batch.epoch
        if batch.seq != batch.previous:
            self._tell(_Told.of(batch))

    def on_position(self, position: Snapshot) -> None:
        self._position = event_frame({"position": str(position)}, kind="position")
        if time.monotonic() - self._position_told >= POSITION_SECONDS:
            self._position_told = time.monotonic()
            self._tell(self._position)

    def on_flush(self, reason: str) -> None:
        self._position = b""
        self._tell(_flush(reason))

    def on_down(self, reason: str) -> None:
        """Readers see that positions stop."""

    def _tell(self, what: _Told | bytes) -> None:
        for reader in self._readers:
            reader.tell(what)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Everything that changes from now on, or from where Last-Event-ID says that the reader was."""
        if len(self._readers) >= MOST_STREAMS:
            raise Busy(f"{MOST_STREAMS} streams of changes are open.", hint="Share one stream in each program.")
        response = await open_event_stream(request)
        if request.method == hdrs.METH_HEAD:
            return response
        tables = [name for name in request.query.get("tables", "").split(",") if name]
        async with self._reader(tables) as reader:
            try:
                await response.write(f"retry: {RETRY_MS}\n\n".encode())
                epoch, position = self._epoch, self._position  # of now: what comes later waits to be told
                reached = await self._catch_up(response, reader, epoch, request.headers.get("Last-Event-ID", ""))
                await response.write(position)
                await self._follow(response, reader, epoch, reached)
            except ConnectionError:
                pass  # the reader has gone
        return response

    @asynccontextmanager
    async def _reader(self, tables: Iterable[str]) -> AsyncIterator[_Reader]:
        reader = _Reader(tables)
        self._readers.add(reader)  # before the feed's memory is read, so that nothing falls in between
        try:
            yield reader
        finally:
            self._readers.discard(reader)

    async def _catch_up(self, response: web.StreamResponse, reader: _Reader, epoch: str, last_id: str) -> int:
        """Tell what a reader missed since `last_id`, or that it missed everything; returns how far that goes."""
        last_epoch, _slash, number = last_id.rpartition("/")
        if last_epoch != epoch or not number.isdecimal():
            await response.write(_flush("the stream begins here"))
            return 0
        seq = int(number)
        while rows := await self._replay(seq):
            for _seq, payload in rows:
                batch = decode(payload)
                if batch.previous != seq or batch.epoch != epoch:
                    await response.write(_flush("more was missed than the feed remembers"))
                    return 0
                if batch.flush:
                    await response.write(_flush("the outbox was full"))
                seq = batch.seq
                await response.write(reader.frame(_Told.of(batch)))
        return seq

    async def _follow(self, response: web.StreamResponse, reader: _Reader, epoch: str, reached: int) -> None:
        while True:
            try:
                async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                    told = await reader.waiting.get()
            except TimeoutError:
                await response.write(b": keep-alive\n\n")
                continue
            if told is None:
                return
            if isinstance(told, bytes):
                await response.write(told)
            elif told.epoch != epoch or told.seq > reached:
                if told.epoch == epoch and reached and told.previous > reached:
                    await response.write(_flush("something was missed"))
                epoch, reached = told.epoch, told.seq
                await response.write(reader.frame(told))


def _flush(reason: str) -> bytes:
    return event_frame({"reason": reason}, kind="flush")
