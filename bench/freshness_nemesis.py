"""What goes wrong in the freshness check.

Owns: each fault, its rhythm, how often it struck and when. Knows neither caches nor rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import asyncpg

from bench.crew import DOWN, Crew, Member
from bench.freshness_proxy import Proxy
from pipeline.embedded import EmbeddedServer

NAME = "freshness nemesis"
VICTIM = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and application_name ~ $1 order by random() limit 1
"""
FLOOD = """
do $$ begin
    for place in 1 .. 3000 loop
        update flood set n = n + 1 where id = place;
        if place % 20 = 0 then commit; end if;
    end loop;
end $$
"""
RHYTHM = {
    "listener terminated": 3.0,
    "leader terminated": 11.0,
    "reader frozen": 5.0,
    "leader frozen": 9.0,
    "pump killed": 13.0,
    "reader killed": 29.0,
    "feed cut": 6.0,
    "feed late": 7.0,
    "answers late, feed cut": 10.0,
    "server crashed": 31.0,
    "server crashed, pump frozen": 47.0,
    "transaction open": 4.0,
    "flood": 8.0,
}
"""Seconds between two faults of each kind, on the average."""


class Site:
    """What one reading process stands on: its crew of one, and the network to its feed and to its queries."""

    def __init__(self, crew: Crew, feed: Proxy, queries: Proxy) -> None:
        self.crew = crew
        self.feed = feed
        self.queries = queries

    @property
    def member(self) -> Member | None:
        return self.crew.members[0] if self.crew.members else None


class Nemesis:
    """struck: how often each fault did; journal: (ns, what) in their order. pump: the crew that only pumps."""

    def __init__(
        self,
        server: EmbeddedServer,
        dsn: str,
        sites: Sequence[Site],
        pump: Crew,
        leader: Path,
        rng: Random,
    ) -> None:
        self.struck: Counter[str] = Counter()
        self.journal: list[tuple[int, str]] = []
        self._server = server
        self._dsn = dsn
        self._sites = sites
        self._pump = pump
        self._leader = leader
        self._rng = rng
        self._up = asyncio.Lock()
        self._faults: dict[str, Callable[[], Awaitable[str | None]]] = {
            "listener terminated": lambda: self._terminate("^pgreflex (follow|probe)"),
            "leader terminated": lambda: self._terminate("^pgreflex (lead|bell)"),
            "reader frozen": self._freeze_reader,
            "leader frozen": self._freeze_leader,
            "pump killed": self._kill_pump,
            "reader killed": self._kill_reader,
            "feed cut": self._cut,
            "feed late": self._delay,
            "answers late, feed cut": self._late_answers,
            "server crashed": self._crash,
            "server crashed, pump frozen": self._freeze_and_crash,
            "transaction open": self._hold,
            "flood": self._flood,
        }

    async def strike(self, seconds: float, rhythm: Mapping[str, float]) -> None:
        """These faults for so long; then everything is as before."""
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(seconds))
                for name, every in rhythm.items():
                    group.create_task(self._often(name, every))
        except TimeoutError:
            pass
        finally:
            for crew in (self._pump, *(site.crew for site in self._sites)):
                for member in crew.members:
                    if member.stopped:
                        crew.wake(member)
            for site in self._sites:
                site.feed.heal()
                site.queries.heal()
        async with self._up:  # a crash that is under way
            await asyncio.to_thread(self._server.start)

    async def _often(self, name: str, every: float) -> None:
        """The first one comes soon, so that a short run sees each."""
        await asyncio.sleep(min(every, 12) * self._rng.uniform(0.1, 0.9))
        while True:
            what = None
            with contextlib.suppress(*DOWN):
                what = await self._faults[name]()
            if what is None:  # it could not be done just now
                await asyncio.sleep(min(1.0, every))
                continue
            self.struck[name] += 1
            self._tell(f"{name}: {what} ends")
            await asyncio.sleep(every * self._rng.uniform(0.5, 1.5))

    def _tell(self, what: str) -> None:
        self.journal.append((time.monotonic_ns(), what))

    @contextlib.asynccontextmanager
    async def _connection(self) -> Any:
        connection = await asyncpg.connect(self._dsn, timeout=5, server_settings={"application_name": NAME})
        try:
            yield connection
        finally:
            connection.terminate()

    async def _terminate(self, whose: str) -> str | None:
        async with self._connection() as connection:
            return whose if await connection.fetchval(VICTIM, whose) else None

    def _any_site(self) -> Site:
        return self._rng.choice(self._sites)

    def _leading(self) -> tuple[Crew, Member] | None:
        """The process that pumps, as far as it has said so."""
        name = self._leader.read_text() if self._leader.exists() else ""
        for crew in (self._pump, *(site.crew for site in self._sites)):
            for member in crew.members:
                if member.name == name and not member.stopped:
                    return crew, member
        return None

    async def _frozen(self, crew: Crew, member: Member, seconds: float) -> str | None:
        if member.stopped or not member.process.is_alive():
            return None
        self._tell(f"{member.name} frozen for {seconds:.1f} s")
        crew.freeze(member)
        try:
            await asyncio.sleep(seconds)
        finally:
            if member in crew.members:
                crew.wake(member)
        return member.name

    async def _freeze_reader(self) -> str | None:
        site = self._any_site()
        seconds = self._rng.choice((self._rng.uniform(0.2, 2.5), self._rng.uniform(2.5, 8)))
        return await self._frozen(site.crew, site.member, seconds) if site.member else None

    async def _freeze_leader(self) -> str | None:
        leading = self._leading()
        return await self._frozen(*leading, self._rng.uniform(0.5, 7)) if leading else None

    async def _kill_pump(self) -> str | None:
        crew, member = self._leading() or (self._pump, (self._pump.members or [None])[0])
        if member is None or member.stopped:
            return None
        crew.kill(member)
        return member.name

    async def _kill_reader(self) -> str | None:
        site = self._any_site()
        if site.member is None or site.member.stopped:
            return None
        name = site.member.name
        site.crew.kill(site.member)
        return name

    async def _cut(self) -> str | None:
        site = self._any_site()
        seconds = self._rng.uniform(0.5, 5)
        site.feed.refusing = self._rng.random() < 0.3
        return await self._disturbed(site, f"feed cut for {seconds:.1f} s", seconds, cut=True)

    async def _delay(self) -> str | None:
        site = self._any_site()
        late = self._rng.uniform(0.3, 2.5)
        seconds = self._rng.uniform(1, 4)
        return await self._disturbed(site, f"feed {late:.1f} s late for {seconds:.1f} s", seconds, feed=late)

    async def _late_answers(self) -> str | None:
        """The answers of the database are late, and the feed falls silent before one of them comes."""
        site = self._sites[0]  # the one that asks through the network
        late = self._rng.uniform(0.35, 0.6)  # well below the time after which a silent feed counts as down
        await self._disturbed(site, f"answers {late:.1f} s late", self._rng.uniform(0.2, 0.4), answers=late)
        return await self._disturbed(site, "feed cut, and such answers under way", 1.8 + late, cut=True)

    async def _disturbed(
        self,
        site: Site,
        what: str,
        seconds: float,
        *,
        cut: bool = False,
        feed: float = 0.0,
        answers: float = 0.0,
    ) -> str | None:
        name = site.member.name if site.member else "nobody"
        self._tell(f"{name}: {what}")
        site.feed.swallowing, site.feed.down, site.queries.down = cut, feed, answers
        try:
            await asyncio.sleep(seconds)
        finally:
            site.feed.heal()
            site.queries.heal()
        return name

    async def _crash(self) -> str | None:
        if self._up.locked():
            return None
        async with self._up:
            self._tell("server crashed")
            await asyncio.shield(asyncio.to_thread(self._stop_and_start))
        return "the server"

    def _stop_and_start(self) -> None:
        self._server.stop("immediate")
        self._server.start()

    async def _freeze_and_crash(self) -> str | None:
        """What commits while the pump stands still is lost to the feed, since the outbox does not survive."""
        leading = self._leading()
        if leading is None or self._up.locked():
            return None
        crew, member = leading
        crew.freeze(member)
        self._tell(f"{member.name} frozen, to crash the server")
        try:
            await asyncio.sleep(self._rng.uniform(0.1, 0.6))
            await self._crash()
        finally:
            if member in crew.members:
                crew.wake(member)
        return member.name

    async def _hold(self) -> str | None:
        """A transaction that is in progress for everybody's snapshot, and does nothing."""
        async with self._connection() as connection:
            await connection.execute("begin; select pg_current_xact_id()")
            await asyncio.sleep(self._rng.uniform(1, 9))
        return "a transaction"

    async def _flood(self) -> str | None:
        async with self._connection() as connection:
            await connection.execute(FLOOD)
        return "3000 statements"
