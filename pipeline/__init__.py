"""pgreflex: reflexes for Postgres.

This package is what people import. Names are loaded on first use, so that importing one part of the
package does not load the driver, the web server and every consumer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.app import Client, connect
    from pipeline.app.caching import Loaded, cache, cached, http_cache, loader, transaction
    from pipeline.app.enqueue import enqueue_in
    from pipeline.app.handle import JobHandle
    from pipeline.app.instrumenting import instrument, uninstrument
    from pipeline.app.jobs import enqueue
    from pipeline.app.pool import create_pool
    from pipeline.app.timing import TimingMiddleware, http_timing, labels, record, timer
    from pipeline.core.directives import Cancel, Discard, Retry, Snooze
    from pipeline.core.events import Event
    from pipeline.core.job import Job
    from pipeline.core.limits import Rate, Unique
    from pipeline.core.retry import Backoff
    from pipeline.core.workflow import Batch, Workflow, chunks
    from pipeline.errors import PgreflexError
    from pipeline.registry import export, middleware, on, task
    from pipeline.schedules import cron

__version__ = "0.1.0"
__all__ = [
    "Backoff",
    "Batch",
    "Cancel",
    "Client",
    "Discard",
    "Event",
    "Job",
    "JobHandle",
    "Loaded",
    "PgreflexError",
    "Rate",
    "Retry",
    "Snooze",
    "TimingMiddleware",
    "Unique",
    "Workflow",
    "__version__",
    "cache",
    "cached",
    "chunks",
    "connect",
    "create_pool",
    "cron",
    "enqueue",
    "enqueue_in",
    "export",
    "http_cache",
    "http_timing",
    "instrument",
    "labels",
    "loader",
    "middleware",
    "on",
    "record",
    "task",
    "timer",
    "transaction",
    "uninstrument",
]

_HOMES = {
    "Client": "pipeline.app",
    "connect": "pipeline.app",
    "Loaded": "pipeline.app.caching",
    "cache": "pipeline.app.caching",
    "cached": "pipeline.app.caching",
    "http_cache": "pipeline.app.caching",
    "loader": "pipeline.app.caching",
    "transaction": "pipeline.app.caching",
    "enqueue": "pipeline.app.jobs",
    "enqueue_in": "pipeline.app.enqueue",
    "TimingMiddleware": "pipeline.app.timing",
    "http_timing": "pipeline.app.timing",
    "create_pool": "pipeline.app.pool",
    "instrument": "pipeline.app.instrumenting",
    "uninstrument": "pipeline.app.instrumenting",
    "labels": "pipeline.app.timing",
    "record": "pipeline.app.timing",
    "timer": "pipeline.app.timing",
    "JobHandle": "pipeline.app.handle",
    "Cancel": "pipeline.core.directives",
    "Discard": "pipeline.core.directives",
    "Retry": "pipeline.core.directives",
    "Snooze": "pipeline.core.directives",
    "Event": "pipeline.core.events",
    "Job": "pipeline.core.job",
    "Rate": "pipeline.core.limits",
    "Unique": "pipeline.core.limits",
    "Backoff": "pipeline.core.retry",
    "Batch": "pipeline.core.workflow",
    "Workflow": "pipeline.core.workflow",
    "chunks": "pipeline.core.workflow",
    "PgreflexError": "pipeline.errors",
    "export": "pipeline.registry",
    "middleware": "pipeline.registry",
    "on": "pipeline.registry",
    "task": "pipeline.registry",
    "cron": "pipeline.schedules",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
