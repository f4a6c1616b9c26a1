"""What a worker writes down of its tasks, so that whoever adds a job by name gets what the task says.

Owns: how a task looks there. Knows neither the database nor what tasks do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.registry import Task


def declarations(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """The rows of pipeline.task, by the names of its columns; times in seconds."""
    return [_row(task) for task in tasks]


def rules(tasks: Sequence[Task]) -> list[tuple[str, int | None, int | None, float | None]]:
    """The rules of the keys that have limits: name, concurrency, rate and in how many seconds."""
    found = {rule.name: rule for task in tasks if (rule := task.key_rule) is not None}
    return [
        (rule.name, rule.concurrency, *((rule.rate.limit, rule.rate.seconds) if rule.rate else (None, None)))
        for rule in found.values()
        if rule.concurrency is not None or rule.rate is not None
    ]


def _row(task: Task) -> dict[str, Any]:
    unique = task.unique
    return {
        "name": task.name,
        "queue": task.queue,
        "priority": task.priority,
        "max_attempts": task.max_attempts,
        "timeout": None,  # the worker knows it; a job keeps only one that was given for it
        "expires": task.expires,
        "key": task.key_template or None,
        "unique_by": None if unique is None else (unique.by or "*"),
        "unique_for": None if unique is None else unique.window,
        "unique_states": None if unique is None or unique.states is None else list(unique.states),
        "on_clash": None if unique is None else unique.on_clash,
        "sealed": task.encrypt,
        "redact": list(task.redact),
    }
