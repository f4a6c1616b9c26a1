"""What the tests of exports share."""

from __future__ import annotations

from typing import Any

from handlers.export import Exported, Exporter
from tests.host_kit import MemoryHost, job

NUMBERS = "select i as id, 'row ' || i as name from generate_series(1, 1000) i"


async def run(exporter: Exporter, path: str, query: str | None = None, **more: Any) -> Exported:
    """A first attempt that nobody watches."""
    return await exporter.export(job(MemoryHost()), path, query=query, **more)
