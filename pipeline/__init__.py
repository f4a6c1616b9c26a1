"""pgreflex: reflexes for Postgres.

This package is what people import. Names are loaded on first use, so that importing one part of the
package does not load the driver, the web server and every consumer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.app import Client, connect
    from pipeline.app.enqueue import enqueue_in
    from pipeline.core.events import Event
    from pipeline.core.job import Job
    from pipeline.errors import PgreflexError
    from pipeline.registry import export, on, task

__version__ = "0.1.0"
__all__ = [
    "Client",
    "Event",
    "Job",
    "PgreflexError",
    "__version__",
    "connect",
    "enqueue_in",
    "export",
    "on",
    "task",
]

_HOMES = {
    "Client": "pipeline.app",
    "connect": "pipeline.app",
    "enqueue_in": "pipeline.app.enqueue",
    "Event": "pipeline.core.events",
    "Job": "pipeline.core.job",
    "PgreflexError": "pipeline.errors",
    "export": "pipeline.registry",
    "on": "pipeline.registry",
    "task": "pipeline.registry",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
