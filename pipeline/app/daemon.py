"""The daemon: every service of one process, and what it tells of itself.

Owns: which services there are and how they are joined. Knows nothing of how each works.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import structlog

from handlers.activity import ActivitySampler
from handlers.alert_rules import FileRules
from handlers.alerts import AlertEvaluator
from handlers.builtin import add_builtin
from handlers.events import UserConsumer
from handlers.jobs import JobWorker
from handlers.latency import LatencyRecorder
from handlers.notify import CONCURRENCY as TELLING
from handlers.notify import QUEUE as ALERTS
from handlers.notify import Notifier
from handlers.purge import QUEUE, PurgeConsumer, Purger, Receiver
from handlers.queries import QueryKeeper
from handlers.schedule import Scheduler
from handlers.statements import StatementWatcher
from handlers.timing_board import TimingBoard
from handlers.timing_keeper import TimingKeeper
from handlers.workflows import WorkflowResolver
from pipeline import __version__
from pipeline.app import alerting, instrumenting, jobs
from pipeline.app.alert_sources import LocalMetrics
from pipeline.app.board import CacheBoard, DeliveryMeter, JobBell, PoolBoard
from pipeline.app.keys import sealer_of
from pipeline.app.poll_only import POLL_SECONDS, NeedsSession, PollOnly
from pipeline.app.timing import recorder
from pipeline.config import Config
from pipeline.core.alert_definition import Definition
from pipeline.core.feed import EventConsumer
from pipeline.core.status import FeedStatus, ServiceHealth, Status, sum_of_timings
from pipeline.db.activity import Activity
from pipeline.db.alert_delivery import DeliveryStore
from pipeline.db.alert_judge import AlertJudge
from pipeline.db.alert_rules import AlertRules
from pipeline.db.alerts import AlertStore
from pipeline.db.connection import Database, describe_server
from pipeline.db.feed import FeedStore
from pipeline.db.job_view import view_database
from pipeline.db.jobs import JobStore, job_database
from pipeline.db.latency import LatencyStore
from pipeline.db.migrate import migrate
from pipeline.db.queries import Queries
from pipeline.db.schedules import ScheduleStore
from pipeline.db.statement_counts import StatementCounts
from pipeline.db.timing_inbox import TimingInbox
from pipeline.db.timing_view import TimingViews
from pipeline.db.workflows import WorkflowStore
from pipeline.errors import ConfigError
from pipeline.feed.consumers import Consumers
from pipeline.feed.follower import Follower
from pipeline.feed.pump import Pump
from pipeline.registry import Registry, default
from pipeline.runtime import Health, Service, Supervisor
from pipeline.web.access import Tokens
from pipeline.web.alerts import AlertsApi
from pipeline.web.changes import ChangeStreams
from pipeline.web.jobs import JobsApi
from pipeline.web.outgoing import Poster
from pipeline.web.performance import PerformanceApi
from pipeline.web.plans import PlansApi
from pipeline.web.server import WebServer
from pipeline.web.source import Liveness
from pipeline.web.timings import TimingsApi

log = structlog.get_logger("pgreflex.daemon")


class Daemon:
    """One daemon. `run` returns after `shutdown` was called and everything has drained."""

    def __init__(self, config: Config, *, registry: Registry = default) -> None:
        self.config = config
        self.started_at = time.time()
        self.database = Database(config.dsn, purpose="daemon", max_size=6)
        self.job_database = job_database(config.dsn)
        self.view_database = view_database(config.dsn, purpose="view")
        listen = config.listening_dsn
        self.pump = Pump(listen, self.database, two_phase=config.feed.two_phase)
        self.poster = Poster()
        self.latency = LatencyRecorder(
            LatencyStore(self.database), slow_ms=config.timings.slow_ms, shared=recorder
        )
        self.keeper = TimingKeeper(
            LatencyStore(self.database), TimingInbox(self.database), self.latency.windows, leading=self.leading
        )
        self.texts = instrumenting.texts_of(self.database)
        self.statements = StatementWatcher(StatementCounts(self.database), leading=self.leading)
        self.activity = ActivitySampler(Activity(self.database), leading=self.leading)
        self.caches = CacheBoard()
        self.delivery = DeliveryMeter(self.pump)
        self.judge = AlertJudge(self.database)
        telling = DeliveryStore(self.database)
        self.notifier = Notifier(
            telling, alerting.targets(config, self.poster.post, telling.notify), leading=self.leading
        )
        self.alerts = AlertEvaluator(
            AlertStore(self.database), self.judge, leading=self.leading, changed=self.notifier.wake
        )
        self.alert_rules = FileRules(
            AlertRules(self.database), [Definition(**rule.model_dump()) for rule in config.alerts.rules]
        )
        add_builtin(registry, self.database, config.jobs)
        self.notifier.add_to(registry)
        queues = {ALERTS: TELLING, **config.jobs.queues}
        receiver = receiver_of(config)
        if receiver is not None:
            Purger(receiver, self.poster.post).add_to(registry)
            queues.setdefault(QUEUE, 1)
        store = JobStore(self.job_database, registry=registry, sealer=sealer_of(config))
        self.job_calls = jobs.Jobs(store)
        self.jobs = JobWorker(
            store,
            registry,
            queues,
            total=config.jobs.total,
            modules=config.imports,
            drain_seconds=config.jobs.drain_seconds,
            timings=self.latency.windows,
        )
        self.workflows = WorkflowResolver(WorkflowStore(self.job_database), self.jobs.wake)
        store.when_ended = self.workflows.wake
        self.schedule = Scheduler(ScheduleStore(self.database), registry)
        others: list[EventConsumer] = [UserConsumer(consumer) for consumer in registry.consumers]
        if receiver is not None:
            others.append(PurgeConsumer(self.job_calls.enqueue, max_staleness=config.cache.max_staleness_seconds))
        self.consumers = Consumers(listen, self.database, [self.latency, self.alerts, *others])
        self.timing_board = TimingBoard(TimingViews(self.database))
        self.pools = PoolBoard()
        changes = ChangeStreams(FeedStore(self.database).replay)
        self.follower = Follower(
            listen, [self.delivery, self.consumers, self.caches, self.pools, JobBell(self.jobs), changes]
        )
        self.metrics = LocalMetrics(
            self.database,
            process=process_name(),
            follower=self.follower,
            delivery=self.delivery,
            caches=self.caches,
        )
        self.judge.local = self.metrics.metrics()
        self.web = WebServer(
            self,
            host=config.http.host,
            port=config.http.port,
            tokens=tokens(config),
            jobs=JobsApi(store, self.view_database),
            performance=PerformanceApi(self.view_database),
            plans=PlansApi(self.view_database),
            changes=changes,
            timings=TimingsApi(self.latency.windows),
            alerts=AlertsApi(self.view_database),
        )
        self.poll_only = PollOnly(lambda: self.jobs.poll_every(POLL_SECONDS))
        feed = [NeedsSession(one, self.poll_only) for one in (self.pump, self.follower, self.consumers)]
        # stopped in reverse: first no more jobs, at the very end the probes
        services: list[Service] = [
            self.web,
            *feed,
            self.latency,
            self.texts,
            self.timing_board,
            self.keeper,
            self.statements,
            self.activity,
            QueryKeeper(Queries(self.database), leading=self.leading),
            self.alert_rules,
            self.notifier,
            self.alerts,
            self.schedule,
            self.workflows,
            self.jobs,
        ]
        self.supervisor = Supervisor(services, drain_timeout=config.jobs.drain_seconds + 10)
        self._server: str | None = None

    def leading(self) -> bool:
        """Whether this process does what one is enough for; several do no harm where nobody can lead."""
        return self.consumers.leading or self.poll_only.on

    def shutdown(self) -> None:
        """Ask for the end; safe in a signal handler."""
        self.supervisor.shutdown()

    async def run(self) -> None:
        """Migrate, serve, drain. Raises what makes it impossible to begin."""
        await self.web.start()  # first: a port that is taken ends the program before the database is touched
        try:
            ran = await migrate(self.config.dsn)
            if ran:
                log.info("the database was brought up to date", files=len(ran))
            await self.database.open()
            await self.job_database.open()
            await self.view_database.open()
            jobs.enter(self.job_calls)
            instrumenting.enter(self.texts, slow_ms=self.config.timings.slow_ms)
            self._server = await describe_server(self.database)
            await self.supervisor.run()
        finally:
            await self.web.stop()
            jobs.leave(self.job_calls)
            instrumenting.leave(self.texts)
            await self.latency.close()
            await self.poster.close()
            await self.view_database.close()
            await self.job_database.close()
            await self.database.close()

    def live(self) -> Liveness:
        return Liveness(draining=self.supervisor.draining, services=self.supervisor.health())

    async def status(self) -> Status:
        """Everything that this process can tell, from memory."""
        live = self.live()
        timings = sum_of_timings((self.latency.totals(), self.keeper.totals()))
        return Status(
            version=__version__,
            process=process_name(),
            at=time.time(),
            started_at=self.started_at,
            ready=live.ready,
            draining=live.draining,
            services=services_of(live.services, self.supervisor),
            database=self._server,
            resident_bytes=resident_bytes(),
            feed=None if self.poll_only.on else self.feed_status(),
            cache=self.caches.status(time.monotonic()),
            series=self.timing_board.series(),
            queries=self.timing_board.queries(),
            timings=self.caches.timings(time.monotonic(), timings),
            alerts=self.alerts.status(),
            alerting=self.alerts.figures(),
            jobs=self.jobs.status(),
            statements=self.statements.status(),
            pools=self.pools.status(time.monotonic()),
            activity=self.activity.status(),
        )

    def feed_status(self) -> FeedStatus:
        """The feed as this process sees it; what only the pump knows is unknown on standby."""
        pump, follower, now = self.pump, self.follower, time.monotonic()
        backlog = pump.backlog if pump.leading else None
        return FeedStatus(
            connected=follower.up,
            leading=pump.leading,
            asleep=pump.bell.asleep if pump.leading else None,
            epoch=follower.epoch,
            seq=follower.seq if follower.epoch else None,
            events_total=follower.events_total,
            events_per_second=follower.rate.per_second(now) if follower.up else None,
            batches_total=follower.batches_total,
            bells_total=pump.bell.bells_total,
            flushes_total=follower.flushes_total,
            reconnects_total=max(follower.reconnects_total, 0),
            backlog_bytes=None if backlog is None else backlog.bytes,
            outbox_full=None if backlog is None else backlog.full,
            write_to_delivery=self.delivery.recent.quantiles(now),
            watches=pump.watches if pump.leading else (),
        )


def services_of(services: Mapping[str, Health], supervisor: Supervisor) -> tuple[ServiceHealth, ...]:
    return tuple(
        ServiceHealth(name, health.ok, health.detail, supervisor.states[name].restarts)
        for name, health in services.items()
    )


def receiver_of(config: Config) -> Receiver | None:
    """Whom to tell what has changed. Raises ConfigError for a header that is none."""
    if config.purge.url is None:
        return None
    headers = {}
    for secret in config.purge.headers:
        name, colon, value = secret.get_secret_value().partition(":")
        if not colon or not name.strip():
            raise ConfigError("one of purge.headers is no header", hint="Write each as Name: value.")
        headers[name.strip()] = value.strip()
    return Receiver(config.purge.url.get_secret_value(), headers, config.purge.tags_header)


def tokens(config: Config) -> Tokens | None:
    viewer, admin = config.http.viewer_token, config.http.admin_token
    if viewer is None and admin is None:
        return None
    return Tokens(
        viewer=None if viewer is None else viewer.get_secret_value(),
        admin=None if admin is None else admin.get_secret_value(),
    )


def process_name() -> str:
    """This process, as others see it."""
    return f"{socket.gethostname()}:{os.getpid()}"


def resident_bytes() -> int | None:
    """The memory that this process occupies, where the system tells it in /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
