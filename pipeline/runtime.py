"""Services, and the one supervisor that runs them.

Owns: starting, restarting with backoff, health, draining. Knows no database, no HTTP and no consumer.

A Service is a loop with a name. The supervisor calls `start` and then `run`, again and again until the
service has been told to stop: when either raises, it waits (full jitter, at most MAX_BACKOFF_SECONDS) and
starts anew, so a service needs no reconnect logic of its own beyond failing. `stop` asks a service to finish
what it holds and makes `run` return; one that does not within the drain timeout is cancelled.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec
import structlog

from pipeline.errors import PgreflexError

MIN_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 3.0
LAST_SECONDS = 1.0  # that each service has to stop although another has used up the time to drain
STEADY_SECONDS = 30.0  # a service that ran this long starts its backoff from the beginning

log = structlog.get_logger("pgreflex.runtime")


class Health(msgspec.Struct, frozen=True):
    """What a service says of itself; `detail` is one short phrase for a person."""

    ok: bool
    detail: str = ""


@runtime_checkable
class Service(Protocol):
    """A background loop. `name` is unique in its process."""

    @property
    def name(self) -> str: ...

    async def start(self) -> None:
        """Get ready: connect, read what is needed. May raise; is then called again later."""

    async def run(self) -> None:
        """Work until `stop` was called. An exception means: start me again."""

    async def stop(self) -> None:
        """Ask `run` to finish what it holds and return. May be called twice, or before `start`."""

    def healthy(self) -> Health:
        """How it goes, from memory: never waits."""


class ServiceState(msgspec.Struct):
    """What the supervisor knows of one service."""

    service: Service
    running: bool = False
    restarts: int = 0
    last_error: str = ""
    since: float = 0.0

    def health(self) -> Health:
        if not self.running:
            return Health(False, self.last_error or "not running")
        return self.service.healthy()


class Supervisor:
    """Runs services until told to stop; restarts those that fail.

    drain_timeout: seconds that the services together may take to finish on shutdown.
    """

    def __init__(
        self,
        services: Sequence[Service],
        *,
        drain_timeout: float = 20.0,
    ) -> None:
        self.states = {service.name: ServiceState(service) for service in services}
        if len(self.states) != len(services):
            raise ValueError("two services have the same name")
        self.drain_timeout = drain_timeout
        self.draining = False
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()

    def start(self) -> None:
        """Start every service, in the order given. Returns at once."""
        for name, state in self.states.items():
            self._tasks[name] = asyncio.create_task(self._keep_running(state), name=f"service-{name}")

    def shutdown(self) -> None:
        """Ask for the end; safe in a signal handler. `run` then drains and returns."""
        self._stopping.set()

    async def run(self) -> None:
        """Start everything, wait for `shutdown`, drain."""
        self.start()
        try:
            await self._stopping.wait()
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Drain: stop the services in reverse order; what takes too long is cancelled, the next one asked."""
        self.draining = True
        self._stopping.set()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.drain_timeout
        try:
            for name in reversed(self._tasks):
                try:
                    async with asyncio.timeout_at(max(deadline, loop.time() + LAST_SECONDS)):
                        await self._stop_one(name)
                except TimeoutError:
                    log.warning("a service took too long to stop; cancelling it", service=name)
                    self._tasks[name].cancel()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def health(self) -> dict[str, Health]:
        return {name: state.health() for name, state in self.states.items()}

    async def _stop_one(self, name: str) -> None:
        state, task = self.states[name], self._tasks[name]
        try:
            await state.service.stop()
        except Exception as error:  # a service that fails to stop must not keep the others from it
            log.warning("service did not stop cleanly", service=name, error=describe(error))
        if not state.running:
            task.cancel()
        await asyncio.wait([task])

    async def _keep_running(self, state: ServiceState) -> None:
        name, backoff = state.service.name, MIN_BACKOFF_SECONDS
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                await state.service.start()
                state.running, state.since, state.last_error = True, time.time(), ""
                await state.service.run()
            except Exception as error:  # any failure of a service means: start it again
                state.last_error = describe(error)
                if not self._stopping.is_set():
                    log.warning("service failed; restarting", service=name, error=state.last_error)
            finally:
                state.running = False
            if self._stopping.is_set():
                return
            if time.monotonic() - began > STEADY_SECONDS:
                backoff = MIN_BACKOFF_SECONDS
            state.restarts += 1
            await self._pause(random.uniform(0, backoff))  # noqa: S311 - jitter, not a secret
            backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)

    async def _pause(self, seconds: float) -> None:
        await wait_for(self._stopping, seconds)


async def wait_for(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait until the event is set, at most so many seconds (None: for ever); whether it was."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


def describe(error: BaseException) -> str:
    """One line for a person: our own errors by their message, others with their class, a group by its first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, PgreflexError):
        return f"{error.message} ({error.code})"
    return f"{type(error).__name__}: {error}"
