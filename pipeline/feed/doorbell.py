"""Falling asleep without missing a bell.

Owns: the asleep lock and the bell. Knows nothing of events.

Theory of operation
-------------------
While the pump polls, writers should say nothing: a NOTIFY takes a cluster-wide lock at commit. While it sleeps,
they must wake it. One advisory lock Z tells them which it is. Each writer, after its outbox row, tries Z shared
for its transaction and never waits: success means that nobody sleeps, and it keeps silent; failure means ring.

Awake, the pump does not touch Z. To fall asleep it queues for Z exclusively, and goes on polling meanwhile.
From the moment it queues, later writers fail to get Z and ring. It gets Z when the last writer that kept
silent has ended; Postgres makes a commit visible before it releases the locks, so a poll that starts now
sees them all. The pump clears the bell, polls once more, and sleeps if that found nothing. A commit that
this last poll did not see came from a writer that failed to get Z, and its bell is behind the clearing.

1. A try instead of the queue would starve: under steady traffic some writer always holds Z shared.
2. Sleeping before Z is granted would miss the writers that kept silent: this is the grace period.
3. A poll before the bell is cleared would lose a bell that rang between the two.
4. If traffic comes back while the pump still queues (a long transaction holds Z), it gives up the queue at once,
   or every writer would ring for as long as that transaction lasts.
5. If the pump dies asleep, the server releases Z; nobody rings for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pipeline.db.feed import BellSession


class Doorbell:
    """cancel: ends the statement that another session waits in, by its process id."""

    def __init__(self, session: BellSession, cancel: Callable[[int], Awaitable[None]]) -> None:
        self.rung = asyncio.Event()
        self.asleep = False
        self.bells_total = 0
        self.sleeps_total = 0
        self._session = session
        self._cancel = cancel
        self._sleepy = asyncio.Event()
        self._woken = asyncio.Event()
        self._queued = False

    async def open(self) -> None:
        """Connect. Raises DatabaseUnavailable."""
        self.asleep = False
        self._sleepy.clear()
        await self._session.open()

    async def close(self) -> None:
        """Disconnect, which also gives the lock back."""
        self.asleep = False
        await self._session.close()

    def ring(self) -> None:
        """A writer rang."""
        self.bells_total += 1
        self.rung.set()

    def doze(self) -> None:
        """Fall asleep as soon as every writer that kept silent has ended."""
        self._woken.clear()
        self._sleepy.set()

    async def wake(self) -> None:
        """Be awake: from now on writers keep silent."""
        if not self._sleepy.is_set():
            return
        self._sleepy.clear()
        self.asleep = False
        self._woken.set()
        if self._queued:
            await self._cancel(self._session.process_id())

    async def touch(self) -> None:
        """Show the server that the sleeper lives; else it would end the idle session and release the lock."""
        if self.asleep:
            await self._session.fetchval("feed/alive")

    async def run(self) -> None:
        """Hold the lock whenever the pump is sleepy. Raises when the session is lost."""
        while True:
            await self._wait_until_sleepy()
            self._queued = True
            try:
                granted = await self._session.sleep()
            finally:
                self._queued = False
            if granted and self._sleepy.is_set():
                self.asleep = True
                self.sleeps_total += 1
                await self._woken.wait()
            self.asleep = False
            await self._session.wake()

    async def _wait_until_sleepy(self) -> None:
        """Wait, and touch the session often enough that the server keeps it."""
        while not self._sleepy.is_set():
            try:
                async with asyncio.timeout(1.0):
                    await self._sleepy.wait()
            except TimeoutError:
                await self._session.fetchval("feed/alive")
