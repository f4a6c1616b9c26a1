"""Alerts: judges rules when their windows have closed, takes in what SQL raised, and tells the sinks.

Owns: when this happens. Must not know SQL, the state machine, or how a sink sends.

Only the process that leads judges and tells. Two that both believe to lead do no harm: a rule is judged under
a lock, and a notice is leased to one of them. Telling is apart from judging and each sink apart from the
others, so a sink that hangs holds up nobody. A delivery is noted only after the sink accepted it; when the
process dies between the two, the sink gets the notice again under the same id.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog

from handlers.sinks import NotAccepted, Sink
from pipeline.core.alert import State
from pipeline.core.alert_notice import Delivery, pause
from pipeline.core.alert_rule import Alert, Judged
from pipeline.core.events import Event
from pipeline.core.status import AlertStatus
from pipeline.db.alerts import AlertStore
from pipeline.errors import DatabaseUnavailable, PgreflexError
from pipeline.runtime import Health, describe

ALERT_CHANNEL = "pipeline.alert"
TICK_SECONDS = 1.0
SEND_SECONDS = 10.0
PRUNE_SECONDS = 600.0

log = structlog.get_logger("pgreflex.alerts")


class AlertEvaluator:
    """Evaluates rules and tells what changed: a Service, and an EventConsumer, for what SQL raises.

    leading: whether this process leads. chance: a number between 0 and 1, for the jitter of retries.
    """

    name = "alerts"

    def __init__(
        self,
        store: AlertStore,
        sinks: Sequence[Sink],
        *,
        leading: Callable[[], bool] = lambda: True,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._sinks = {sink.name: sink for sink in sinks}
        if len(self._sinks) != len(sinks):
            raise ValueError("two sinks have the same name")
        self._leading = leading
        self._chance = chance
        self._status: tuple[AlertStatus, ...] = ()
        self._problems: dict[str, str] = {}  # by loop
        self._failing: dict[str, str] = {}
        self._prune_due = 0.0
        self._stopping = asyncio.Event()
        self._wake = {name: asyncio.Event() for name in ("", *self._sinks)}  # "" is the judge

    async def handle(self, events: Sequence[Event]) -> None:
        """Wake up when SQL has raised or resolved something; the inbox holds what."""
        if any(event.op == "e" and event.name == ALERT_CHANNEL for event in events):
            self._wake[""].set()

    async def missed(self, reason: str) -> None:
        """Nothing is lost: the inbox is a table, and it is looked at every second anyway."""
        self._wake[""].set()

    async def judge(self) -> list[Judged]:
        """One pass: the inbox, rules that are gone, rules that are due. Returns what changed."""
        changed = []
        while taken := await self._store.take_inbox():
            changed += taken
        changed += await self._store.end_orphans()
        for rule in await self._store.due_rules():
            try:
                changed += await self._store.judge(rule.id)
            except DatabaseUnavailable:
                raise
            except PgreflexError as error:  # the others are judged all the same
                log.warning("rule could not be judged", rule=rule.name, error=describe(error))
                await self._store.set_problem(rule.id, describe(error))
        if any(one.change for one in changed):
            for name in self._sinks:
                self._wake[name].set()
        return changed

    async def deliver(self, name: str) -> int:
        """One pass for one sink: send what is due. Returns how many notices it accepted."""
        accepted = 0
        for delivery in await self._store.claim(name):
            accepted += await self._send(self._sinks[name], delivery)
        return accepted

    async def _send(self, sink: Sink, delivery: Delivery) -> bool:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await sink.send(delivery.notice)
        except Exception as error:  # whatever a sink raises means: not accepted
            problem = _reason(error)
            if sink.name not in self._failing:
                log.warning("alert could not be delivered; retrying", sink=sink.name, reason=problem)
            self._failing[sink.name] = problem
            wait = pause(delivery.attempts, self._chance())
            await self._store.not_delivered(delivery.notice.id, sink.name, pause=wait, problem=problem)
            return False
        self._failing.pop(sink.name, None)
        await self._store.delivered(delivery.notice.id, sink.name)
        return True

    async def refresh(self) -> None:
        """Read the current alerts for `status`."""
        self._status = tuple(map(_status, await self._store.current()))

    def status(self) -> tuple[AlertStatus, ...]:
        """The alerts that are pending, firing or lately resolved, the gravest first; a second old at most."""
        return self._status

    async def start(self) -> None:
        await self._store.register_sinks(list(self._sinks))

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._repeat("", self._judge_and_refresh))
                for name in self._sinks:
                    group.create_task(self._repeat(name, partial(self._deliver_all, name)))
        except ExceptionGroup as several:  # the supervisor shows one line; it should name the cause
            raise several.exceptions[0] from several

    async def stop(self) -> None:
        self._stopping.set()
        for event in self._wake.values():
            event.set()

    def healthy(self) -> Health:
        if self._problems:
            return Health(False, next(iter(self._problems.values())))
        if self._failing:
            name, problem = next(iter(self._failing.items()))
            return Health(True, f"sink {name} does not accept: {problem}")
        return Health(True)

    async def _judge_and_refresh(self) -> None:
        if self._leading():
            await self.judge()
            now = asyncio.get_running_loop().time()
            if now >= self._prune_due:
                self._prune_due = now + PRUNE_SECONDS
                await self._store.register_sinks(list(self._sinks))
                await self._store.prune()
        await self.refresh()

    async def _deliver_all(self, name: str) -> None:
        while self._leading() and not self._stopping.is_set() and await self.deliver(name):
            pass

    async def _repeat(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` when woken, and every second; a database that is away is waited for."""
        while not self._stopping.is_set():
            self._wake[name].clear()
            if self._stopping.is_set():
                return
            try:
                await work()
                self._problems.pop(name, None)
            except PgreflexError as error:
                if not self._problems:
                    log.warning("alerts stand still", error=describe(error))
                self._problems[name] = describe(error)
            try:
                async with asyncio.timeout(TICK_SECONDS):
                    await self._wake[name].wait()
            except TimeoutError:
                pass


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {SEND_SECONDS:g} s"
    if isinstance(error, NotAccepted):
        return str(error)
    return type(error).__name__  # a message from outside may carry an address with a token in it


def _status(alert: Alert) -> AlertStatus:
    life = alert.life
    since = {State.FIRING: life.fired_at, State.RESOLVED: life.resolved_at}.get(life.state, life.active_at)
    message = f"{alert.message} (no data at present)" if life.nodata else alert.message
    return AlertStatus(
        alert.rule, str(life.state), alert.severity, since or 0.0, message, alert.value, alert.threshold
    )
