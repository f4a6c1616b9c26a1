"""The feed, up and recording, for every test below."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.flow.feed_kit import Feed, running


@pytest.fixture
async def feed(dsn: str) -> AsyncIterator[Feed]:
    """A pump, a follower and one consumer on the test's own database."""
    async with running(dsn) as started:
        yield started
