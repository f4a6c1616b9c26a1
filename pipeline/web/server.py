"""The web server as a Service: its socket, its start and its end.

Owns: the listening socket and the order of start and stop. What is served is the other modules' affair.

Everything that can be wrong with the settings is found by the constructor (ConfigError). `start` may be
called ahead of the supervisor, so that a port that is taken ends the program with a clear message rather than
in a loop of restarts: a second `start` finds the socket open and leaves it so. Hand the server to the
supervisor FIRST: services stop in reverse order, and /readyz must say "draining" while the others drain.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Collection

import structlog
from aiohttp import web

from pipeline.errors import Busy, ConfigError
from pipeline.runtime import Health
from pipeline.web.access import Access, Tokens
from pipeline.web.alerts import AlertsApi
from pipeline.web.api import StatusApi, Streams
from pipeline.web.changes import ChangeStreams
from pipeline.web.health import Probes
from pipeline.web.jobs import JobsApi
from pipeline.web.metrics import MetricsPage
from pipeline.web.page import Page, add_safety_headers
from pipeline.web.performance import PerformanceApi
from pipeline.web.plans import PlansApi
from pipeline.web.problems import errors_as_problems, explain
from pipeline.web.source import STATUS_TIMEOUT, Sampler, StatusSource
from pipeline.web.timings import TimingsApi

CLOSE_SECONDS = 0.5  # what a request under way may take on shutdown; streams are told and end at once
LARGEST_BODY = 1 << 20  # bytes

log = structlog.get_logger("pgreflex.web")


class WithoutRequest(logging.Filter):
    """Takes the exception off what aiohttp logs: it quotes a header that cannot be parsed, token and all."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = None
        return True


wire_log = logging.getLogger("pgreflex.web.wire")
wire_log.addFilter(WithoutRequest())


class WebServer:
    """Serves the page, the API, the probes and the metrics of one process.

    source: where the figures come from. host, port: the address to bind; port 0 takes any free one.
    tokens: the bearer tokens; on an address that is not loopback a viewer token is a must.
    allowed_hosts: names, besides the loopback ones, under which a loopback bind may be reached. jobs,
    performance, plans: the parts for jobs and queues and for timings, where there is a database. changes: the
    stream of changes, where the feed is followed. timings: takes those that are sent.
    alerts: alerts and their rules. Raises ConfigError when
    these do not fit together.
    """

    def __init__(
        self,
        source: StatusSource,
        *,
        host: str = "127.0.0.1",
        port: int = 8787,
        tokens: Tokens | None = None,
        allowed_hosts: Collection[str] = (),
        status_timeout: float = STATUS_TIMEOUT,
        jobs: JobsApi | None = None,
        performance: PerformanceApi | None = None,
        plans: PlansApi | None = None,
        changes: ChangeStreams | None = None,
        timings: TimingsApi | None = None,
        alerts: AlertsApi | None = None,
    ) -> None:
        if not 0 <= port <= 65535:
            raise ConfigError(f"{port} is not a port.", hint="Ports go from 1 to 65535; 0 takes any free one.")
        self.host = host
        self._port = port
        self._source = source
        self._jobs = jobs
        self._performance = performance
        self._plans = plans
        self._changes = changes
        self._timings = timings
        self._alerts = alerts
        self._access = Access(host, tokens, allowed_hosts)
        self._sampler = Sampler(source, timeout=status_timeout)
        self._streams = Streams(self._sampler)
        self._runner: web.AppRunner | None = None

    @property
    def name(self) -> str:
        return "web"

    @property
    def port(self) -> int:
        """The port that is bound, or the one that will be."""
        if self._runner is not None and self._runner.addresses:
            return int(self._runner.addresses[0][1])
        return self._port

    @property
    def url(self) -> str:
        """The address of the page."""
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        return f"http://{host}:{self.port}/"

    async def start(self) -> None:
        """Bind and serve. Raises Busy when the port is taken, ConfigError when it cannot be bound at all."""
        if self._runner is not None:
            return
        self._streams = Streams(self._sampler)
        runner = web.AppRunner(
            self._application(), access_log=None, logger=wire_log, shutdown_timeout=CLOSE_SECONDS
        )
        try:
            await runner.setup()
            await web.TCPSite(runner, self.host or None, self._port).start()
        except BaseException as error:
            await runner.cleanup()
            if isinstance(error, OSError):
                raise self._explained(error) from error
            raise
        self._runner = runner
        log.info("web server listens", url=self.url, token_needed=self._access.token_needed)

    async def run(self) -> None:
        """Feed the streams until `stop`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._streams.run())
            if self._alerts is not None:
                group.create_task(self._alerts.stream.run())

    async def stop(self) -> None:
        """End the streams, close the socket."""
        self._streams.close()
        if self._changes is not None:
            self._changes.close()
        if self._alerts is not None:
            self._alerts.stream.close()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def healthy(self) -> Health:
        if self._runner is None:
            return Health(False, "not listening")
        return Health(True, f"listens on {self.url}")

    def _application(self) -> web.Application:
        app = web.Application(
            middlewares=[errors_as_problems, self._access.middleware()], client_max_size=LARGEST_BODY
        )
        app.on_response_prepare.append(add_safety_headers)
        parts = (
            Page(),
            Probes(self._source, self._access),
            StatusApi(self._sampler),
            self._streams,
            MetricsPage(self._sampler),
        )
        for part in parts:
            part.add_to(app.router)
        if self._jobs is not None:
            self._jobs.add_to(app.router)
        if self._performance is not None:
            self._performance.add_to(app.router)
        if self._plans is not None:
            self._plans.add_to(app.router)
        if self._changes is not None:
            self._changes.add_to(app.router)
        if self._timings is not None:
            self._timings.add_to(app.router)
        if self._alerts is not None:
            self._alerts.add_to(app.router)
        app.router.add_get("/errors/{code}", explain)
        return app

    def _explained(self, error: OSError) -> Busy | ConfigError:
        if error.errno == errno.EADDRINUSE:
            return Busy(
                f"Port {self._port} is taken by another program.",
                hint="Choose one with --port or PGREFLEX_HTTP_PORT.",
            )
        if error.errno in (errno.EACCES, errno.EPERM):
            return ConfigError(
                f"This user may not bind port {self._port}.",
                hint="Choose a port above 1023 with --port or PGREFLEX_HTTP_PORT.",
            )
        if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
            return ConfigError(
                f"{self.host} is not an address of this machine.",
                hint="Choose one with --host or PGREFLEX_HTTP_HOST; 127.0.0.1 serves this machine only.",
            )
        return ConfigError(f"{self.host} port {self._port} cannot be bound: {error.strerror or error}.")
