"""The tasks that every daemon has, without --import.

Owns: their names and limits. Knows nothing of what they do.
"""

from __future__ import annotations

from handlers.export import Exporter
from pipeline.config import Jobs
from pipeline.db.export import ExportStore
from pipeline.registry import Registry

EXPORT = "pgreflex.export"


def add_builtin(registry: Registry, dsn: str | None, jobs: Jobs) -> None:
    """Give the registry the built-in tasks, as this configuration wants them."""
    exporter = Exporter(ExportStore(dsn), registry.exports, directory=jobs.export_dir, queries=jobs.export_queries)
    registry.add_task(exporter.export, name=EXPORT)
