"""Telling of alerts: rounds that find out what is untold, and the task that sends it.

Owns: when a round is made, and what follows from how sending went. Must not know SQL, what is told (core
decides) or how a channel sends.

A round only writes notifications and enqueues their jobs, so no channel can hold up another, or a rule. The job
sends, and notes it only after the channel has accepted it. When its worker dies between the two, the job runs
again and the channel gets the notification again, under the same id. It is retried with growing pauses for a
day; what can never succeed ends at once. Either is said aloud: in the log, as a job that failed, and as an alert
of our own, which every other channel is told. A job that somebody deletes is replaced.

Every process makes rounds for the channels that it has, because another may be configured with others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import msgspec
import structlog

from handlers.channels import Channel, NotAccepted
from pipeline.core.alert_flush import Pace
from pipeline.core.alert_round import Route
from pipeline.core.directives import Discard, Retry, Snooze
from pipeline.core.job import Job
from pipeline.core.retry import Backoff
from pipeline.db.alert_delivery import ChannelRow, DeliveryStore
from pipeline.errors import PgreflexError
from pipeline.registry import Registry
from pipeline.runtime import Health, describe

TASK = "pgreflex.notify"
QUEUE = "pgreflex.alerts"
CONCURRENCY = 20
TICK_SECONDS = 1.0
STANDBY_SECONDS = 5.0  # of a process that does not lead, and so learns of changes only by looking
REST = 4  # times as long as a round took, nothing more is looked at
ELSEWHERE_SECONDS = 5.0  # until another process may have taken a job for a channel that this one lacks
PRUNE_SECONDS = 600.0
SEND_SECONDS = 40.0
BACKOFF = Backoff(first=1, longest=60)
GIVE_UP_SECONDS = 86_400.0

log = structlog.get_logger("pgreflex.notify")


class Target(msgspec.Struct, frozen=True):
    """A channel, which alerts it is told of, and how often."""

    route: Route
    channel: Channel
    pace: Pace = Pace()

    @property
    def row(self) -> ChannelRow:
        definition = msgspec.json.encode((self.channel.kind, self.route.matchers)).decode()
        return ChannelRow(self.route.channel, self.channel.kind, definition)


class Notifier:
    """Makes rounds, and is the task that sends. A Service.

    leading: whether this process judges rules, and so is woken when something has changed.
    """

    name = "notify"

    def __init__(
        self,
        store: DeliveryStore,
        targets: Sequence[Target],
        *,
        leading: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._targets = {target.route.channel: target for target in targets}
        self._leading = leading
        self._failing: dict[str, str] = {}
        self._problem = ""
        self._prune_due = 0.0
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()

    @property
    def targets(self) -> Mapping[str, Target]:
        return self._targets

    def add_to(self, registry: Registry) -> None:
        """The task that sends; one notification of a channel at a time."""
        registry.add_task(
            self.send,
            name=TASK,
            queue=QUEUE,
            timeout=SEND_SECONDS + 10,
            backoff=BACKOFF,
            concurrency_key=f"{TASK}:{{channel}}",
            concurrency=1,
        )

    def wake(self) -> None:
        """Something has changed: make a round now."""
        self._wake.set()

    async def round(self) -> int:
        """One round for every channel; returns how many notifications were made."""
        made = 0
        for target in self._targets.values():
            made += await self._store.round(target.route, target.pace)
        return made

    async def send(self, job: Job, *, notification: str, channel: str) -> None:
        """The task: tell one channel one notification. Raises Retry, Snooze and Discard."""
        target = self._targets.get(channel)
        if target is None:
            if not await self._store.waits(notification):
                return  # the channel was forgotten, and the notification with it
            raise Snooze(ELSEWHERE_SECONDS, f"this process has no channel {channel}")
        outgoing = await self._store.take(notification)
        if outgoing is None:
            return
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await target.channel.send(outgoing.notification)
        except Exception as error:  # whatever a channel raises means: not accepted
            await self._not_accepted(notification, channel, error, outgoing.age)
        else:
            await self._store.end(notification, told=True)
            self._failing.pop(channel, None)
            self._wake.set()  # the group may be told the rest

    async def _not_accepted(self, id_: str, channel: str, error: Exception, age: float) -> None:
        reason = _reason(error)
        permanent = isinstance(error, NotAccepted) and error.permanent
        if channel not in self._failing:
            log.warning("alert could not be delivered", channel=channel, reason=reason, final=permanent)
        if permanent or age > GIVE_UP_SECONDS:
            await self._store.end(id_, told=False, problem=reason)
            log.error("alert was not delivered and is given up", channel=channel, reason=reason, id=id_)
            self._failing[channel] = reason
            raise Discard(reason)
        self._failing[channel] = reason
        await self._store.problem(id_, reason)
        raise Retry(error.retry_after if isinstance(error, NotAccepted) else None, reason)

    async def start(self) -> None:
        await self._register()

    async def run(self) -> None:
        now = asyncio.get_running_loop().time
        while not self._stopping.is_set():
            self._wake.clear()
            began = now()
            try:
                await self.round()
                await self._keep_house()
                self._problem = ""
            except PgreflexError as error:
                if not self._problem:
                    log.warning("alerts cannot be told", error=describe(error))
                self._problem = describe(error)
            await self._wait(self._stopping, (now() - began) * REST)
            await self._wait(self._wake, TICK_SECONDS if self._leading() else STANDBY_SECONDS)

    async def stop(self) -> None:
        self._stopping.set()
        self._wake.set()

    def healthy(self) -> Health:
        if self._problem:
            return Health(False, self._problem)
        if self._failing:
            channel, reason = next(iter(self._failing.items()))
            return Health(True, f"channel {channel} does not accept: {reason}")
        return Health(True)

    async def _wait(self, event: asyncio.Event, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()

    async def _keep_house(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._prune_due:
            self._prune_due = now + PRUNE_SECONDS
            await self._register()
            await self._store.prune()

    async def _register(self) -> None:
        await self._store.register([target.row for target in self._targets.values()], Pace())


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, NotAccepted | PgreflexError):
        return str(error)
    return type(error).__name__  # a message from outside may carry an address with a token in it
