"""POST /api/v1/timings: who may, what is counted, and the verdict on each timing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import aiohttp
import pytest

from pipeline.core.window import Windows
from pipeline.web.access import Tokens
from pipeline.web.server import WebServer
from pipeline.web.timings import MOST_TIMINGS, TimingsApi
from tests.web.conftest import Serve, Source

VIEWER, ADMIN = "viewer-" + "v" * 20, "admin-" + "a" * 20
NOW = 1_790_000_000.0
AS_ADMIN = {"Authorization": f"Bearer {ADMIN}"}


@pytest.fixture
def windows() -> Windows:
    return Windows(lambda: NOW)


@pytest.fixture
async def server(serve: Serve, source: Source, windows: Windows) -> WebServer:
    return await serve(source, tokens=Tokens(viewer=VIEWER, admin=ADMIN), timings=TimingsApi(windows))


@pytest.fixture
async def http(server: WebServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server.url, headers={"Content-Type": "application/json"}) as session:
        yield session


async def post(http: aiohttp.ClientSession, body: Any, status: int = 202, **options: Any) -> Any:
    text = body if isinstance(body, str | bytes | BytesIO) else json.dumps(body)
    async with http.post("/api/v1/timings", data=text, **{"headers": AS_ADMIN, **options}) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json(content_type=None)


async def test_numbers_and_bodies_without_measure_are_refused_one_by_one(
    http: aiohttp.ClientSession, windows: Windows
) -> None:
    told = await post(http, [{"name": "a", "ms": 1}, {"name": "a", "ms": 1, "at": 10**400}])
    assert (told["accepted"], [one["index"] for one in told["rejected"]]) == (1, [1])
    assert windows.rejected_total == 1
    assert (await post(http, "[" * 5_000, 400))["code"] == "usage"


async def test_timings_are_counted_in_the_window_of_their_time(
    http: aiohttp.ClientSession, windows: Windows
) -> None:
    assert await post(http, {"name": "render", "ms": 12.5}) == {"accepted": 1, "rejected": []}
    several = [
        {"name": "render", "ms": 7, "labels": {"eu": True, "shop": 3, "note": None}, "error": True},
        {"name": "render", "ms": 1, "at": NOW - 60},
        {"name": "render", "ms": 2, "at": "2026-09-21T15:33:20+02:00", "labels": None},
    ]
    assert (await post(http, several))["accepted"] == 3
    found = {(part.series.text, part.start): (part.digest.total, part.errors) for part in windows.take(None)}
    assert found == {
        ("render", NOW): (12.5, 0),
        ('render{eu="true",note="",shop="3"}', NOW): (7, 1),
        ("render", NOW - 60): (1, 0),
        ("render", 1_789_997_600): (2, 0),
    }


async def test_each_timing_that_cannot_be_counted_is_named_with_its_reason(
    http: aiohttp.ClientSession, windows: Windows
) -> None:
    good = {"name": "a", "ms": 1}
    bad = [
        7,
        {"ms": 1},
        {"name": "", "ms": 1},
        {"name": "a"},
        {"name": "a", "ms": -1},
        {"name": "a", "ms": 1e300},
        {"name": "a", "ms": True},
        {"name": "a", "ms": "7"},
        {**good, "labels": [1]},
        {**good, "labels": {"a": {}}},
        {**good, "error": 1},
        {**good, "extra": 1},
        {**good, "at": "yesterday"},
        {**good, "at": "2026-09-21T15:33:20"},
        {**good, "at": True},
        {**good, "at": NOW - 49 * 3_600},
    ]
    found = await post(http, [good, *bad, good])
    assert found["accepted"] == 2
    assert [one["index"] for one in found["rejected"]] == list(range(1, len(bad) + 1))
    reasons = [one["reason"] for one in found["rejected"]]
    assert len(set(reasons)) == 9
    assert reasons[4] == "ms is no number from 0 to 1e+12"
    assert reasons[-1] == "at is more than 48 hours ago"
    assert windows.rejected_total == len(bad)
    assert (await post(http, bad[0], status=422))["accepted"] == 0


async def test_what_is_no_list_of_timings_is_refused_as_a_whole(
    http: aiohttp.ClientSession, windows: Windows
) -> None:
    assert (await post(http, [], status=202))["accepted"] == 0
    for body in ("", "{", '[{"name": "a", "ms": NaN}]', b'"\xff"'):
        assert "JSON" in (await post(http, body, status=400))["detail"]
    assert "too many" in (await post(http, [1] * (MOST_TIMINGS + 1), status=400))["detail"]
    assert (await post(http, BytesIO(b"x" * ((1 << 20) + 1)), status=413))["status"] == 413
    plain = {**AS_ADMIN, "Content-Type": "text/plain"}
    assert "application/json" in (await post(http, "[]", status=400, headers=plain))["detail"]
    assert windows.take(None) == []


async def test_sending_timings_needs_the_admin_token(http: aiohttp.ClientSession, windows: Windows) -> None:
    one = {"name": "a", "ms": 1}
    await post(http, one, status=401, headers={})
    await post(http, one, status=403, headers={"Authorization": f"Bearer {VIEWER}"})
    assert windows.take(None) == []
