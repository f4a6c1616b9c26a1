"""Keeps the rules of the configuration in the database.

Owns: when they are written. Must not know what a rule means, nor SQL.

A rule that the database refuses, for instance because its query reads a table that a later migration makes, keeps
neither the others nor the daemon back: it is told, and tried again every minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from pipeline.core.alert_definition import Definition
from pipeline.db.alert_rules import AlertRules
from pipeline.runtime import Health

RETRY_SECONDS = 60.0

log = structlog.get_logger("pgreflex.alerts")


class FileRules:
    """Writes the rules of the configuration when the daemon starts: a Service."""

    name = "alert_rules"

    def __init__(self, store: AlertRules, rules: Sequence[Definition]) -> None:
        self._store = store
        self._rules = rules
        self._problems: dict[str, str] = {}
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        await self.follow()

    async def run(self) -> None:
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(RETRY_SECONDS if self._problems else None):
                    await self._stopping.wait()
            except TimeoutError:
                await self.follow()

    async def follow(self) -> None:
        """Write them now. Raises our database errors."""
        problems = await self._store.follow(self._rules)
        for name, problem in problems.items():
            if self._problems.get(name) != problem:
                log.warning("a rule of the configuration was refused", rule=name, reason=problem)
        self._problems = problems

    async def stop(self) -> None:
        self._stopping.set()

    def healthy(self) -> Health:
        for name, problem in self._problems.items():
            return Health(True, f"rule {name} was refused: {problem}")
        return Health(True)
