"""What an application imports: a cache that follows the feed, jobs, and events of one's own.

Owns: the parts that an application's process needs, and their life. Knows nothing of how each works.

    async with pipeline.connect(dsn) as client:
        rows = await client.cache.query("select * from orders where id = $1", 7, tags=["orders:7"])
        await client.enqueue("shop.tasks.send_receipt", order_id=7)

No daemon has to run for the cache to keep its promise: every client stands by to pump the feed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

import msgspec

from handlers.cache import Cache
from handlers.cache_shared import SharedLevel
from handlers.latency import LatencyRecorder
from handlers.plans import PlanCatcher
from pipeline.app import caching, instrumenting
from pipeline.app import jobs as current_jobs
from pipeline.app.board import CACHE_CHANNEL, MOST_POOLS, POOL_CHANNEL, CacheReport, PoolReport
from pipeline.app.jobs import Jobs
from pipeline.app.keys import sealer
from pipeline.app.poll_only import NeedsSession, PollOnly
from pipeline.app.pool import open_pools
from pipeline.app.reporting import Reporter
from pipeline.app.timing import recorder
from pipeline.config import load
from pipeline.core.feed import FeedSink
from pipeline.core.snapshot import Snapshot
from pipeline.core.workflow import Batch, Workflow
from pipeline.db.admin import emit
from pipeline.db.alert_rules import AlertRules
from pipeline.db.bulk import Bulk
from pipeline.db.cache import CacheDatabase
from pipeline.db.cache_shared import SharedTable, shared_database
from pipeline.db.connection import Database
from pipeline.db.explain import Explainer
from pipeline.db.jobs import JobStore, job_database
from pipeline.db.latency import LatencyStore
from pipeline.db.plans import PlanStore
from pipeline.db.query_tags import QueryAnalyst
from pipeline.db.replicas import Replicas
from pipeline.db.rows import Lookups
from pipeline.db.schedules import ScheduleStore
from pipeline.db.transactions import Isolation, Transactions
from pipeline.db.workflows import WorkflowRun, WorkflowStore
from pipeline.errors import UsageError
from pipeline.feed.follower import Follower
from pipeline.feed.pump import Pump
from pipeline.log import as_guest
from pipeline.registry import Registry, default
from pipeline.runtime import Service, Supervisor


class Client:
    """One application process's share of pgreflex; open it with `async with`, or `open` and `close`.

    dsn: as everywhere; None takes the PG* variables. listen_dsn: past a transaction pooler. read_dsn: of standbys,
    for the queries of the cache. max_bytes, max_entries: bounds of what is cached. max_staleness: seconds. sinks:
    further listeners of the feed. pump: stand by to pump the feed when no other process does. two_phase: as the
    setting feed.two_phase; it must be the same in every process that may pump. encryption_keys: as the setting
    jobs.encryption_keys. shared: as the setting cache.shared. self_check: read a sample of the cache's hits again,
    at most one a second, to see that they were right. timings: write the timings of this process to this database;
    of several clients that may, the one that was opened first does. slow_ms, plans_per_minute,
    analyze_plans: as the settings of `timings`.
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        listen_dsn: str | None = None,
        read_dsn: str | None = None,
        max_bytes: int = 64 * 1024 * 1024,
        max_entries: int = 100_000,
        max_staleness: float = 1.0,
        registry: Registry = default,
        sinks: tuple[FeedSink, ...] = (),
        pump: bool = True,
        two_phase: bool = False,
        encryption_keys: Sequence[str] = (),
        shared: bool = False,
        self_check: bool = True,
        timings: bool = True,
        slow_ms: float = 1000.0,
        plans_per_minute: int = 10,
        analyze_plans: bool = False,
    ) -> None:
        self.database = Database(dsn, purpose="client", max_size=10)
        self._probes = Database(dsn, purpose="probe", max_size=1)
        self._job_database = job_database(dsn, max_size=2)
        self._shared_database = shared_database(dsn)
        self.shared = SharedLevel(SharedTable(self._shared_database, self.database), by_default=shared)
        source = CacheDatabase(self.database, self._probes)
        self._standbys = None if read_dsn is None else Database(read_dsn, purpose="read", max_size=10)
        self.replicas = Replicas(source, self._standbys)
        analyst = QueryAnalyst(self.database)
        self.replicas.settings = lambda: analyst.settings
        self.cache = Cache(
            prober=self.replicas,
            lookups=Lookups(self.database),
            analyst=analyst,
            alarm=source.alarm,
            max_bytes=max_bytes,
            max_entries=max_entries,
            max_staleness=max_staleness,
            shared=self.shared,
            transactions=Transactions(self.database),
        )
        self.replicas.proved = lambda: self.cache.healthy().ok
        self.bulk = Bulk(self.database)
        self.alert_rules = AlertRules(self.database)
        seals = sealer(encryption_keys)
        self.jobs = Jobs(JobStore(self._job_database, registry=registry, sealer=seals))
        self.enqueue = self.jobs.enqueue
        self.workflows = WorkflowStore(self._job_database, registry=registry, sealer=seals)
        self.follower = Follower(listen_dsn or dsn, [self.cache, self.replicas, *sinks])
        self.pump = Pump(listen_dsn or dsn, self.database, two_phase=two_phase)
        self.timings = LatencyRecorder(
            LatencyStore(self.database),
            shared=recorder if timings else None,
            slow_ms=slow_ms,
        )
        self.plans = PlanCatcher(
            PlanStore(self.database),
            Explainer(listen_dsn or dsn),
            analyze=analyze_plans,
            per_minute=plans_per_minute,
        )
        self.texts = instrumenting.texts_of(self.database)
        self._timed = timings
        reporter = Reporter(self._report)
        poll_only = PollOnly()
        services: list[Service] = [NeedsSession(self.follower, poll_only), self.cache, self.shared, reporter]
        if timings:
            services += [self.timings, self.texts, self.plans]
        if self_check:
            services.append(self.cache.self_check)
        if pump:
            services.append(NeedsSession(self.pump, poll_only))
        self._supervisor = Supervisor(services, drain_timeout=5)
        self._process = f"{socket.gethostname()}:{os.getpid()}"

    async def open(self) -> Client:
        """Connect and follow the feed. Raises DatabaseUnavailable, LoginFailed."""
        as_guest()
        await self.database.open()
        try:
            await self.database.fetchval("admin/backend")  # the pool connects when it is first used
        except BaseException:
            await self.database.close()
            raise
        await self._probes.open()
        if self._standbys is not None:
            await self._standbys.open()
        await self._job_database.open()
        await self._shared_database.open()
        self.timings.enter()
        if self._timed:
            instrumenting.enter(self.texts, slow_ms=self.timings.windows.slow_ms, seen=self.plans.seen)
        self._supervisor.start()
        current_jobs.enter(self.jobs)
        caching.enter(self.cache)
        return self

    async def close(self) -> None:
        """Stop following and disconnect."""
        caching.leave(self.cache)
        current_jobs.leave(self.jobs)
        await self._supervisor.stop()
        instrumenting.leave(self.texts)
        await self.timings.close()
        pools = (self.database, self._probes, self._job_database, self._shared_database, self._standbys)
        for database in pools:
            if database is not None:
                await database.close()

    async def __aenter__(self) -> Client:
        return await self.open()

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    def transaction(self, *, isolation: Isolation | None = None) -> AbstractAsyncContextManager[Any]:
        """A transaction whose writes this process's cache reflects at once; see Cache.transaction."""
        return self.cache.transaction(isolation=isolation)

    async def snapshot_of(self, conn: object) -> Snapshot:
        """A snapshot all of which is seen by whatever is read on this connection from now on; for Loaded.

        It is for loaders of your own that read on a standby. conn: of asyncpg, psycopg 3 or SQLAlchemy, to a
        standby or to the primary. For a standby of another history it is one that admits nothing.
        """
        return await self.replicas.snapshot_of(conn)

    async def start(self, flow: Workflow | Batch, *, conn: object = None) -> WorkflowRun:
        """Add all jobs of a workflow, or none; returns what tells how they do.

        conn: as of `enqueue`. Raises TaskError for a cycle and whatever else is wrong, before anything is sent.
        """
        return await self.workflows.start(flow, conn=conn)

    async def backfill(self, name: str, start: datetime, end: datetime | None = None) -> int:
        """Make the runs of a schedule that a past span lacks, from `start` on, before `end` (None: up to now).

        Returns how many were made; doing it again makes none twice. Raises TaskError when there is no such
        schedule, UsageError for a time without a zone, and a span that is too long or lies ahead.
        """
        if start.tzinfo is None or (end is not None and end.tzinfo is None):
            raise UsageError("a time of the backfill has no time zone", hint="Use datetime(..., tzinfo=UTC).")
        filled = await ScheduleStore(self.database).backfill(
            name, start.timestamp(), None if end is None else end.timestamp()
        )
        return filled.made

    async def rate_limit(self, key: str, limit: int, seconds: float = 1.0) -> bool:
        """Whether one more may happen, if at most `limit` in any `seconds` are allowed for this key; counts a yes.

        Strict over all processes. Raises QueryFailed for a limit below 1 or no time.
        """
        allowed: bool = await self.database.fetchval("jobs/rate_limit", key, limit, seconds)
        return allowed

    async def emit(self, channel: str, payload: str | None = None) -> None:
        """Send an event of one's own to everybody who follows the feed."""
        await emit(self.database, channel, payload)

    async def _report(self) -> None:
        report = CacheReport(self._process, self.cache.status(), self.timings.totals())
        await self.emit(CACHE_CHANNEL, msgspec.json.encode(report).decode())
        pools = open_pools()
        if pools:
            told = PoolReport(self._process, pools[:MOST_POOLS])
            await self.emit(POOL_CHANNEL, msgspec.json.encode(told).decode())


def connect(dsn: str | None = None, **options: Any) -> Client:
    """A client, to be used in `async with`; see Client for the options.

    What is not given comes from the configuration, as it does for the daemon: pgreflex.toml, PGREFLEX_* and
    DATABASE_URL. Raises ConfigError.
    """
    config = load().config
    known: dict[str, Any] = {
        "listen_dsn": config.listen_dsn if dsn is None else None,
        "read_dsn": config.read_dsn if dsn is None else None,
        "max_bytes": int(config.cache.max_bytes),  # pydantic's own kind of int has no wire form
        "max_entries": config.cache.max_entries,
        "max_staleness": config.cache.max_staleness_seconds,
        "shared": config.cache.shared,
        "two_phase": config.feed.two_phase,
        "self_check": config.cache.self_check,
        "slow_ms": config.timings.slow_ms,
        "plans_per_minute": config.timings.plans_per_minute,
        "analyze_plans": config.timings.analyze_plans,
        "encryption_keys": [key.get_secret_value() for key in config.jobs.encryption_keys],
    }
    return Client(dsn or config.dsn, **{**known, **options})
