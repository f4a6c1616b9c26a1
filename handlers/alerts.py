"""Alerts: judges rules when their windows have closed, and takes in what SQL raised.

Owns: when this happens. Must not know SQL, the state machine, or who is told (handlers/notify.py).

Only the process that leads judges. Two that both believe to lead do no harm: a rule is judged under a lock. What
SQL raised and rules have a loop of their own, so a storm or a slow rule holds up nobody else. Rules are judged a
few at a time, and those with a query of the user's have places of their own: one that never ends delays at most
other queries, by its timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog

from pipeline.core.alert_rule import Judged
from pipeline.core.events import Event
from pipeline.core.status import AlertingStatus, AlertStatus
from pipeline.db.alert_judge import AlertJudge, DueRule
from pipeline.db.alert_shapes import AlertRow
from pipeline.db.alerts import AlertStore
from pipeline.errors import DatabaseUnavailable, PgreflexError
from pipeline.runtime import Health, describe

ALERT_CHANNEL = "pipeline.alert"
TICK_SECONDS = 1.0
INBOX_SECONDS = 0.5  # raise_alert leaves out the event when another was sent just now
FIGURES_SECONDS = 5.0  # they count every alert, which of 100,000 takes 20 ms
PRUNE_SECONDS = 600.0
RETRY_SECONDS = 10.0  # after which a rule that failed is tried again, if its window can still be measured
PLACES = {False: 2, True: 3}  # how many rules are judged at once: of ours, and those with a query of the user's

log = structlog.get_logger("pgreflex.alerts")


class AlertEvaluator:
    """Evaluates rules: a Service, and an EventConsumer, for what SQL raises.

    store, judge: where alerts are kept, and what judges rules. leading: whether this process leads. changed: is
    called when an alert has begun to fire, or was resolved.
    """

    name = "alerts"

    def __init__(
        self,
        store: AlertStore,
        judge: AlertJudge,
        *,
        leading: Callable[[], bool] = lambda: True,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._rules = judge
        self._leading = leading
        self._changed = changed
        self._status: tuple[AlertStatus, ...] = ()
        self._figures: AlertingStatus | None = None
        self._figures_due = 0.0
        self._problems: dict[str, str] = {}  # by loop
        self._prune_due = 0.0
        self._stopping = asyncio.Event()
        self._wake = {name: asyncio.Event() for name in ("inbox", "rules", "status")}
        self._judging: dict[int, tuple[DueRule, asyncio.Task[None]]] = {}
        self._broken: dict[str, str] = {}  # by rule
        self._retry_at: dict[int, float] = {}
        self._waiting = False  # whether a rule that is due has no place
        self._pause = {"inbox": INBOX_SECONDS, "rules": TICK_SECONDS, "status": TICK_SECONDS}

    async def handle(self, events: Sequence[Event]) -> None:
        """Wake up when SQL has raised or resolved something; the inbox holds what."""
        if any(event.op == "e" and event.name == ALERT_CHANNEL for event in events):
            self._wake["inbox"].set()

    async def missed(self, reason: str) -> None:
        """Nothing is lost: the inbox is a table, and it is looked at anyway."""
        self._wake["inbox"].set()

    async def take_in(self) -> list[Judged]:
        """Take in all that SQL raised or resolved. Returns what changed."""
        changed = []
        while taken := await self._store.take_inbox():
            changed += taken
            self._tell(taken)
        return changed

    async def judge(self) -> list[Judged]:
        """One whole pass: the inbox, rules that are gone, rules that are due. Returns what changed."""
        changed = await self.take_in() + await self._store.end_orphans()
        for rule in await self._rules.due_rules():
            changed += await self._judge_one(rule)
        self._tell(changed)
        return changed

    async def _judge_one(self, rule: DueRule) -> list[Judged]:
        """Judge one rule; one that cannot be judged keeps none of the others from it."""
        try:
            changed = await self._rules.judge(rule.id)
        except DatabaseUnavailable:
            raise
        except PgreflexError as error:
            if self._broken.get(rule.name) != error.message:
                log.warning("rule could not be judged", rule=rule.name, error=describe(error))
                self._broken[rule.name] = error.message
            return []
        self._broken.pop(rule.name, None)
        return changed

    def _tell(self, changed: Sequence[Judged]) -> None:
        if any(one.change for one in changed):
            self._wake["status"].set()
            self._changed()

    async def refresh(self) -> None:
        """Read the current alerts for `status`."""
        self._status = tuple(map(_status, await self._store.current()))
        now = asyncio.get_running_loop().time()
        if now >= self._figures_due:
            self._figures = await self._store.figures()
            self._figures_due = now + FIGURES_SECONDS

    def status(self) -> tuple[AlertStatus, ...]:
        """The alerts that are pending, firing or lately resolved, the gravest first; a second old at most."""
        return self._status

    def figures(self) -> AlertingStatus | None:
        """Alerting as a whole; some seconds old. None, it has not been looked at yet."""
        return self._figures

    async def start(self) -> None:
        """Nothing to open."""

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._repeat("inbox", self._take_in))
                group.create_task(self._repeat("rules", partial(self._start_due, group)))
                group.create_task(self._repeat("status", self.refresh))
        except ExceptionGroup as several:  # the supervisor shows one line; it should name the cause
            raise several.exceptions[0] from several

    async def stop(self) -> None:
        self._stopping.set()
        for event in self._wake.values():
            event.set()
        for _rule, task in self._judging.values():
            task.cancel()  # what was not saved is judged anew

    def healthy(self) -> Health:
        if self._problems:
            return Health(False, next(iter(self._problems.values())))
        return Health(True)

    async def _take_in(self) -> None:
        if self._leading():
            await self.take_in()

    async def _start_due(self, group: asyncio.TaskGroup) -> None:
        """Begin to judge the rules that are due, as far as there are places."""
        self._pause["rules"] = TICK_SECONDS
        if not self._leading():
            return
        now = asyncio.get_running_loop().time()
        if now >= self._prune_due:
            self._prune_due = now + PRUNE_SECONDS
            await self._store.prune()
        self._tell(await self._store.end_orphans())
        self._waiting = False
        due = await self._rules.due_rules()
        self._pause["rules"] = min(TICK_SECONDS, self._rules.pause + 0.01)
        for rule in due:
            if rule.id in self._judging or self._retry_at.get(rule.id, 0.0) > now:
                continue
            taken = sum(other.query == rule.query for other, _task in self._judging.values())
            if taken >= PLACES[rule.query] or self._stopping.is_set():
                self._waiting = True
                continue
            self._judging[rule.id] = (rule, group.create_task(self._judge_apart(rule)))

    async def _judge_apart(self, rule: DueRule) -> None:
        try:
            self._tell(await self._judge_one(rule))
        except PgreflexError as error:
            self._problems["rules"] = describe(error)  # cleared by the next look for rules that are due
        finally:
            del self._judging[rule.id]
            if rule.name in self._broken:
                self._retry_at[rule.id] = asyncio.get_running_loop().time() + RETRY_SECONDS
            if self._waiting:
                self._wake["rules"].set()

    async def _repeat(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` when woken, and after each pause; a database that is away is waited for."""
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
                async with asyncio.timeout(self._pause[name]):
                    await self._wake[name].wait()
            except TimeoutError:
                pass


def _status(alert: AlertRow) -> AlertStatus:
    message = f"{alert.message} (no data at present)" if alert.nodata else alert.message
    return AlertStatus(
        alert.rule,
        alert.state,
        alert.severity,
        alert.since,
        message,
        alert.value,
        alert.threshold,
        instance=alert.instance,
        unit=alert.unit,
        runbook=alert.runbook,
        acknowledged=None if alert.acknowledged is None else alert.acknowledged.by,
        held=alert.held,
    )
