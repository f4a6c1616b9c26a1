"""What stands around the runs of jobs.

Owns: the order of the middleware. Knows neither jobs nor tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.core.job import Job
from pipeline.registry import Around, CallNext, Registry, Task


def around(registry: Registry, job: Job, task: Task) -> list[Around]:
    """What is around this job's runs; the first is outermost."""
    return [one.function for one in registry.middlewares if one.covers(job, task)]


def wrap(layers: Sequence[Around], innermost: CallNext) -> CallNext:
    """A call that passes all layers on its way to the innermost."""
    call = innermost
    for layer in reversed(layers):
        call = _layer(layer, call)
    return call


def _layer(layer: Around, inner: CallNext) -> CallNext:
    async def call(job: Job) -> Any:
        return await layer(job, inner)

    return call
