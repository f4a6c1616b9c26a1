"""The feed, up and recording, and what writes exports, for every test below."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handlers.export import Exporter
from pipeline.db.export import ExportStore
from tests.flow.feed_kit import Feed, running


@pytest.fixture
async def feed(dsn: str) -> AsyncIterator[Feed]:
    """A pump, a follower and one consumer on the test's own database."""
    async with running(dsn) as started:
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where exports go."""
    made = tmp_path / "exports"
    made.mkdir()
    return made


@pytest.fixture
def exporter(dsn: str, folder: Path) -> Exporter:
    """Takes any query and saves after every batch."""
    return Exporter(ExportStore(dsn), {}, directory=folder, queries=True, save_seconds=0)
