"""The tasks that every daemon has, without --import.

Owns: their names and limits. Knows nothing of what they do.
"""

from __future__ import annotations

from handlers.cleanup import Cleaner
from handlers.export import Exporter
from pipeline.config_sections import Jobs
from pipeline.db.cleanup import CleanupStore
from pipeline.db.connection import Database
from pipeline.db.export import ExportStore
from pipeline.registry import Registry, filling
from pipeline.schedules import cron

EXPORT = "pgreflex.export"
CLEANUP = "pgreflex.cleanup"
CLEANUP_AT = "17 3 * * *"  # not at midnight, when everybody else's daily work begins


def add_builtin(registry: Registry, database: Database, jobs: Jobs) -> None:
    """Give the registry the built-in tasks, as this configuration wants them.

    database: open once a task runs; an export makes a connection of its own to the same place.
    """
    exporter = Exporter(
        ExportStore(database.dsn), registry.exports, directory=jobs.export_dir, queries=jobs.export_queries
    )
    registry.add_task(exporter.export, name=EXPORT)
    cleanup = Cleaner(CleanupStore(database)).cleanup
    registry.add_task(cleanup, name=CLEANUP, max_attempts=3, timeout=3600)
    with filling(registry):
        cron(CLEANUP_AT)(cleanup)
