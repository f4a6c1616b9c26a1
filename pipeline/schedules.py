"""The schedules that a program brings.

Owns: the decorator `cron`, and the check that each schedule fits its task. Knows no database and no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from pipeline import registry as tasks
from pipeline.core import cron as times
from pipeline.core.args import refuse_large
from pipeline.core.schedule import MAX_MISSED, MISSED, MOST_MISSED, Missed, Schedule
from pipeline.definition import source_of
from pipeline.errors import TaskError
from pipeline.registry import Registry

SAMPLE = "2000-01-01T00:00:00Z"
F = TypeVar("F", bound=Callable[..., Any])
SCHEDULED_FOR = "scheduled_for"
"""The parameter of a task that is given the scheduled time."""


class Declared(msgspec.Struct, frozen=True):
    """A schedule with its task: a row of pipeline.schedule."""

    name: str
    task: str
    args: dict[str, Any]
    queue: str | None
    priority: int | None
    cron: str
    timezone: str
    missed: Missed
    max_missed: int


def cron(
    expression: str,
    *,
    timezone: str = "UTC",
    missed: Missed = "one",
    args: Mapping[str, Any] | None = None,
    name: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    max_missed: int = MAX_MISSED,
) -> Callable[[F], F]:
    """Let the task come again and again, in whichever daemon comes first; above or below @task.

    expression: five fields, a name such as @daily, or an interval such as "every 5m". timezone: by whose clock.
    missed: what becomes of runs that no daemon made in time: "skip", "one" (the newest) or "all" (at most
    `max_missed`, the newest). args: the task's arguments; a task with the parameter `scheduled_for` is given the
    scheduled time, in UTC as ISO 8601. name: the task's by default; needed when one task has two schedules. queue,
    priority: the task's by default.
    Raises TaskError for an expression or a zone that cannot be read, and for one that never happens.
    """

    def decorate(function: F) -> F:
        schedule = Schedule(
            function,
            name,
            expression,
            timezone,
            missed,
            max_missed,
            dict(args or {}),
            queue,
            priority,
            source_of(function),
        )
        _check(schedule)
        add(tasks.filled(), schedule)
        return function

    return decorate


def add(registry: Registry, schedule: Schedule) -> None:
    """Add a schedule, in place of the same one from an earlier import of its module."""
    registry.schedules = [known for known in registry.schedules if _home(known) != _home(schedule)]
    registry.schedules.append(schedule)


def declared(registry: Registry) -> list[Declared]:
    """Every schedule of the program with its task, by name.

    Raises TaskError when a function is no task, its arguments do not fit, or two schedules have one name.
    """
    found: dict[str, Declared] = {}
    for schedule in registry.schedules:
        one = _with_task(registry, schedule)
        if one.name in found:
            raise TaskError(
                f"two schedules are named {one.name} ({schedule.source})",
                hint='Give one of them another name: @cron(..., name="...").',
            )
        found[one.name] = one
    return [found[name] for name in sorted(found)]


def _with_task(registry: Registry, schedule: Schedule) -> Declared:
    task = registry.find(schedule.function)
    if task is None:
        raise TaskError(f"the schedule in {schedule.source} has no task")
    args = dict(schedule.args)
    if task.encrypt and args:
        raise TaskError(
            f"the schedule in {schedule.source} has arguments, and task {task.name} encrypts its own",
            hint="A schedule's arguments are stored as they are. Let the task read what is secret when it runs.",
        )
    if SCHEDULED_FOR in task.signature.parameters:
        args.setdefault(SCHEDULED_FOR, None)
    filled = SCHEDULED_FOR in args and args[SCHEDULED_FOR] is None
    task.check({**args, SCHEDULED_FOR: SAMPLE} if filled else args)
    try:
        text = msgspec.json.encode(args)
    except (TypeError, ValueError, UnicodeError) as error:
        raise TaskError(f"the arguments of the schedule in {schedule.source} are not JSON: {error}") from None
    refuse_large(f"the arguments of the schedule in {schedule.source}", text)
    return Declared(
        schedule.name or task.name,
        task.name,
        args,
        schedule.queue,
        schedule.priority,
        schedule.cron,
        schedule.timezone,
        schedule.missed,
        schedule.max_missed,
    )


def _check(schedule: Schedule) -> None:
    try:
        times.parse(schedule.cron, schedule.timezone)
    except TaskError as error:
        raise TaskError(f"{error.message} ({schedule.source})", hint=error.hint) from None
    name_fits = schedule.name is None or 1 <= len(schedule.name) <= 200
    priority_fits = schedule.priority is None or -32768 <= schedule.priority <= 32767
    if (
        schedule.missed not in MISSED
        or not 1 <= schedule.max_missed <= MOST_MISSED
        or schedule.queue == ""
        or not name_fits
        or not priority_fits
    ):
        raise TaskError(
            f"a schedule has an option that cannot be meant ({schedule.source})",
            hint=f"missed is skip, one or all; max_missed is 1 to {MOST_MISSED}; name and queue are not empty; "
            "priority is -32768 to 32767.",
        )


def _home(schedule: Schedule) -> tuple[str, str, str | None]:
    return schedule.function.__module__, schedule.function.__qualname__, schedule.name
