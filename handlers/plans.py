"""Plans of slow queries, caught in the process that runs them.

Owns: which of the slow queries get a plan, and when. Must not know SQL; what may be explained is decided in
pipeline/core/plan_query.py, and how in pipeline/db/explain.py and measure.py.

`seen` only puts the query into a short queue, from any thread. The service takes one after the other, at most
`per_minute`, and asks the database for the turn: a query gets one plan an hour over all processes. What cannot
be had is written down with the reason.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, NamedTuple

import structlog

from pipeline.core.fingerprint import Fingerprint
from pipeline.core.plan import summary
from pipeline.core.plan_query import MAX_TEXT, NotPlanned, Planned, planned
from pipeline.db.explain import Explained, Explainer, PlanFailed
from pipeline.db.measure import measure
from pipeline.db.plans import PlanStore
from pipeline.errors import PgreflexError
from pipeline.runtime import Health, describe

TICK_SECONDS = 1.0
IDLE_SECONDS = 60.0  # after which the connection is closed
AGAIN_SECONDS = 3_600.0  # the database grants no turn earlier
MAX_WAITING = 100
MAX_KNOWN = 10_000  # queries of which is known when they were seen last

log = structlog.get_logger("pgreflex.plans")


class _Slow(NamedTuple):
    text: str
    fingerprint: Fingerprint
    ms: float
    args: Sequence[Any] | None


class PlanCatcher:
    """Gets the plans of slow queries. A Service.

    explainer: asks with the role and settings of the application. analyze: run a query again to measure its plan,
    where that is harmless; see docs/timings.md. per_minute: how many plans at most in any minute.
    """

    name = "plans"

    def __init__(
        self,
        store: PlanStore,
        explainer: Explainer,
        *,
        analyze: bool = False,
        per_minute: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._explainer = explainer
        self._analyze = analyze
        self._per_minute = per_minute
        self._clock = clock
        self._waiting: deque[_Slow] = deque()
        self._known: OrderedDict[str, float] = OrderedDict()
        self._lock = Lock()
        self._asked: deque[float] = deque(maxlen=max(per_minute, 1))
        self._stopping = False
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._problem = ""
        self.dropped_total = 0
        self.planned_total = 0
        self.refused_total = 0

    def seen(self, text: str, fingerprint: Fingerprint, ms: float, *, args: Sequence[Any] | None = None) -> None:
        """A query took so many milliseconds, which is too long. Returns at once and never raises; any thread.

        args: what it was called with; kept only while it waits, and only if plans are measured.
        """
        try:
            now = self._clock()
            with self._lock:
                before = self._known.get(fingerprint.hex)
                if before is not None and now - before < AGAIN_SECONDS:
                    return
                if len(self._waiting) >= MAX_WAITING or self._per_minute <= 0:
                    self.dropped_total += 1
                    return
                self._known[fingerprint.hex] = now
                self._known.move_to_end(fingerprint.hex)
                if len(self._known) > MAX_KNOWN:
                    self._known.popitem(last=False)
                kept = text if len(text) <= MAX_TEXT else text[: MAX_TEXT + 1]  # too long to be asked for
                self._waiting.append(_Slow(kept, fingerprint, ms, args if self._analyze else None))
                loop = self._loop
            if loop is not None:
                loop.call_soon_threadsafe(self._wake.set)
        except Exception:  # whoever timed a query must not pay for our mistakes
            self.dropped_total += 1

    async def start(self) -> None:
        """Nothing to get ready: the connection is opened when a plan is wanted."""

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        idle_since = self._clock()
        try:
            while not self._stopping:
                if await self._next():
                    idle_since = self._clock()
                    continue
                if self._explainer.connected and self._clock() - idle_since > IDLE_SECONDS:
                    await self._explainer.close()
                await self._pause()
        finally:
            self._loop = None  # it may be closed when the next query is slow
            self._explainer.drop()

    async def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def healthy(self) -> Health:
        """A plan that cannot be had is no failure; a database that cannot be asked for turns is."""
        return Health(not self._problem, self._problem or f"{self.planned_total} plans")

    async def _pause(self) -> None:
        """Wait for the next slow query, or for the time to look again."""
        try:
            async with asyncio.timeout(TICK_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            pass
        if not self._stopping:
            self._wake.clear()

    async def _next(self) -> bool:
        """Look for one plan; False: none is wanted, or none may be looked for yet."""
        now = self._clock()
        if not self._waiting or (len(self._asked) >= self._per_minute and now - self._asked[0] < 60):
            return False
        with self._lock:
            slow = self._waiting.popleft()
        try:
            if await self._store.claim(slow.fingerprint.hex):
                self._asked.append(now)
                await self._look(slow)
            self._problem = ""
        except PgreflexError as error:
            self._problem = describe(error)
            with self._lock:  # another time
                self._known.pop(slow.fingerprint.hex, None)
            return False
        return True

    async def _look(self, slow: _Slow) -> None:
        hex_ = slow.fingerprint.hex
        wanted = planned(slow.text)
        if isinstance(wanted, NotPlanned):
            await self._store.refuse(hex_, "refused", wanted.reason)
            self.refused_total += 1
            return
        try:
            generic = await self._explainer.explain(wanted)
        except PlanFailed as error:
            await self._store.refuse(hex_, "failed", str(error))
            self.refused_total += 1
            return
        explained = await self._measured(wanted, slow) if self._analyze else None
        before = await self._store.save(hex_, explained or generic, slow.ms, generic=generic)
        self.planned_total += 1
        if before is not None:
            log.warning(
                "a query has another plan than before",
                fingerprint=hex_,
                query=slow.fingerprint.text[:200],
                before=before,
                now=summary(generic.plan),
            )

    async def _measured(self, wanted: Planned, slow: _Slow) -> Explained | None:
        try:
            return await measure(self._explainer, wanted.text, slow.args)
        except PlanFailed as error:
            log.info("a plan was not measured", fingerprint=slow.fingerprint.hex, reason=str(error))
            return None
