"""Changes of alerts' states as server-sent events: /api/v1/alerts/stream.

Owns: the streams, and the way back after an interruption. Knows no SQL, and not how alerts are judged.

A stream begins with `alerts`, everything that is alive, and goes on with `change`, one for each change of state.
Each carries the number of the change that it reaches to. Who comes back with it in Last-Event-ID gets what he
missed or, where that is too much or forgotten, `alerts` again. One that cannot keep up is cut off and comes back
the same way, so nothing is left out in silence. All streams share one loop that asks the database once a second,
and only while somebody listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import hdrs, web

from pipeline.db.alert_changes import AlertChanges
from pipeline.db.alert_shapes import ChangeRow
from pipeline.db.alert_view import AlertViews
from pipeline.db.connection import Database
from pipeline.errors import Busy, PgreflexError
from pipeline.web.api import KEEP_ALIVE_SECONDS, MOST_STREAMS, RETRY_MS, event_frame, open_event_stream
from pipeline.web.problems import log

POLL_SECONDS = 1.0
PAGE = 500
MOST_MISSED = 5_000  # changes that are told to one who comes back; beyond, how things are says it shorter
MOST_WAITING = 5_000
BACK = 1_000  # changes before the newest, among which one that is not committed yet may lie


class _Reader:
    """One stream. rule: the only one that it asked for, or none."""

    def __init__(self, rule: str | None) -> None:
        self.waiting: asyncio.Queue[ChangeRow | None] = asyncio.Queue()
        self._rule = rule
        self._cut_off = False

    def tell(self, change: ChangeRow) -> None:
        if self._cut_off or not self.wants(change):
            return
        if self.waiting.qsize() >= MOST_WAITING:
            self.end()
        else:
            self.waiting.put_nowait(change)

    def wants(self, change: ChangeRow) -> bool:
        return self._rule is None or change.rule == self._rule

    def end(self) -> None:
        self._cut_off = True
        self.waiting.put_nowait(None)


class AlertStream:
    """GET /api/v1/alerts/stream, and the loop that feeds it. database: opened elsewhere."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._views = AlertViews(database)
        self._readers: set[_Reader] = set()
        self._changes: AlertChanges | None = None
        self._turn = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._closing = False
        self._failing = False

    @property
    def open(self) -> int:
        """How many streams are open."""
        return len(self._readers)

    def close(self) -> None:
        """End every stream and the loop."""
        self._closing = True
        self._wanted.set()
        for reader in self._readers:
            reader.end()

    async def run(self) -> None:
        """Ask for changes while somebody listens, until `close`."""
        self._closing = False
        while not self._closing:
            self._wanted.clear()
            if self._readers:
                await self._round()
            try:
                async with asyncio.timeout(POLL_SECONDS if self._readers else None):
                    await self._wanted.wait()
            except TimeoutError:
                pass

    async def _round(self) -> None:
        try:
            changes = await self._follow()
            while found := await changes.read(PAGE):
                for change in found:
                    for reader in self._readers:
                        reader.tell(change)
            if self._failing:  # it may be another server now, which is behind: all come back and look anew
                self._failing, self._changes = False, None
                for reader in self._readers:
                    reader.end()
        except PgreflexError as error:
            if not self._failing:
                log.warning("changes of alerts cannot be read", error=error.message)
            self._failing = True

    async def _follow(self) -> AlertChanges:
        async with self._turn:
            if self._changes is None:
                row = await self._db.fetchrow("alert_view/change_range")
                changes = AlertChanges(self._db, max(row["last"] - BACK if row else 0, 0))
                while await changes.read(PAGE):
                    pass  # as far as nothing before it can still come
                self._changes = changes
            return self._changes

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Every change of state from now on, or from where Last-Event-ID says that the reader was."""
        if len(self._readers) >= MOST_STREAMS:
            raise Busy(f"{MOST_STREAMS} streams of alerts are open.", hint="Close one, or poll /api/v1/alerts.")
        rule = request.query.get("rule")
        if rule is not None:
            await self._views.known(rule)
        async with self._reader(rule) as reader:
            changes = await self._follow()
            response = await open_event_stream(request)
            if request.method == hdrs.METH_HEAD:
                return response
            try:
                await response.write(f"retry: {RETRY_MS}\n\n".encode())
                reached = await self._catch_up(response, reader, rule, changes.position, _number(request))
                await self._feed(response, reader, reached)
            except ConnectionError:
                pass  # the reader has gone
        return response

    @asynccontextmanager
    async def _reader(self, rule: str | None) -> AsyncIterator[_Reader]:
        reader = _Reader(rule)
        if not self._readers:
            self._changes = None  # nobody has followed since
        self._readers.add(reader)  # before anything is read, so that nothing falls in between
        self._wanted.set()
        try:
            yield reader
        finally:
            self._readers.discard(reader)

    async def _catch_up(
        self, response: web.StreamResponse, reader: _Reader, rule: str | None, position: int, last: int | None
    ) -> int:
        """Tell what was missed since `last`, or how things are; returns the number that this reaches to."""
        row = await self._db.fetchrow("alert_view/change_range")
        known = row is not None and last is not None and row["first"] - 1 <= last <= position
        if last is None or not known or position - last > MOST_MISSED:
            alerts = await self._views.alerts(rule=rule)
            await response.write(event_frame({"alerts": alerts}, kind="alerts", id_=str(position)))
            return position
        missed = AlertChanges(self._db, last)
        while missed.position < position and (found := await missed.read(PAGE)):
            for change in found:
                if reader.wants(change):
                    await response.write(_frame(change))
        return missed.position

    async def _feed(self, response: web.StreamResponse, reader: _Reader, reached: int) -> None:
        while not self._closing:
            try:
                async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                    change = await reader.waiting.get()
            except TimeoutError:
                await response.write(b": keep-alive\n\n")
                continue
            if change is None:
                return
            if change.id > reached:
                reached = change.id
                await response.write(_frame(change))


def _number(request: web.Request) -> int | None:
    text = request.headers.get("Last-Event-ID", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def _frame(change: ChangeRow) -> bytes:
    return event_frame(change, kind="change", id_=str(change.id))
