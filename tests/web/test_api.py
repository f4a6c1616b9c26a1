"""The status as JSON: once, with an ETag, and as a stream that ends when it is told to."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import msgspec
import pytest

from pipeline.core.status import Status
from pipeline.errors import DatabaseUnavailable
from pipeline.web import api
from pipeline.web.server import WebServer
from tests.conftest import eventually
from tests.web.conftest import Serve, Source

Client = aiohttp.ClientSession


async def events(answer: aiohttp.ClientResponse) -> Any:
    """The events of a stream, one by one: (kind, data)."""
    kind = "message"
    async for line in answer.content:
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            kind = value
        elif field == "data":
            yield kind, value
            kind = "message"


async def first_event(answer: aiohttp.ClientResponse) -> tuple[str, str]:
    async for event in events(answer):
        return event
    raise AssertionError("the stream ended without an event")


async def test_the_status_is_served_whole(http: Client, busy_status: Status) -> None:
    async with http.get("/api/v1/status") as answer:
        assert answer.status == 200
        assert answer.content_type == "application/json"
        assert answer.headers["Cache-Control"] == "no-store"
        assert msgspec.json.decode(await answer.read(), type=Status) == busy_status


async def test_what_is_unknown_is_null_and_not_zero(http: Client, source: Source, bare_status: Status) -> None:
    source.answer = bare_status
    async with http.get("/api/v1/status") as answer:
        body = await answer.json()
    assert body["feed"] is None
    assert body["resident_bytes"] is None


async def test_unchanged_figures_are_not_sent_again(
    http: Client, source: Source, busy_status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.web.source.SHARE_SECONDS", -1.0)
    async with http.get("/api/v1/status") as answer:
        tag = answer.headers["ETag"]
    source.answer = msgspec.structs.replace(busy_status, at=busy_status.at + 60)
    async with http.get("/api/v1/status", headers={"If-None-Match": tag}) as answer:
        assert answer.status == 304
        assert await answer.read() == b""
        assert answer.headers["ETag"] == tag
    source.answer = msgspec.structs.replace(busy_status, draining=True)
    async with http.get("/api/v1/status", headers={"If-None-Match": tag}) as answer:
        assert answer.status == 200
        assert answer.headers["ETag"] != tag


async def test_readers_at_the_same_time_cost_one_look(http: Client, source: Source) -> None:
    async def read() -> None:
        async with http.get("/api/v1/status") as answer:
            assert answer.status == 200

    await asyncio.gather(*(read() for _ in range(20)))
    assert source.asked == 1


async def test_figures_that_hang_become_an_error_in_time(serve: Serve, source: Source) -> None:
    source.hangs = True
    server = await serve(source, status_timeout=0.1)
    async with Client(server.url) as http:
        for path in ("/api/v1/status", "/metrics"):
            async with http.get(path) as answer:
                assert answer.status == 503
                assert answer.headers["Retry-After"] == "1"
                assert (await answer.json(content_type=None))["code"] == "busy"


async def test_the_stream_says_how_it_is_to_be_read(http: Client) -> None:
    async with http.get("/api/v1/stream") as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert await answer.content.readline() == b"retry: 3000\n"


async def test_the_stream_brings_a_status_each_second(http: Client, source: Source, busy_status: Status) -> None:
    async with http.get("/api/v1/stream") as answer:
        kind, data = await first_event(answer)
        assert (kind, msgspec.json.decode(data, type=Status)) == ("message", busy_status)
        source.answer = msgspec.structs.replace(busy_status, draining=True)
        began = time.monotonic()
        kind, data = await first_event(answer)
        assert msgspec.json.decode(data, type=Status).draining
        assert 0.5 < time.monotonic() - began < 3


async def test_many_streams_cost_one_look_a_second(
    http: Client, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.web.source.SHARE_SECONDS", -1.0)

    async def third() -> None:
        async with http.get("/api/v1/stream") as answer:
            number = 0
            async for _ in events(answer):
                number += 1
                if number == 3:
                    return

    await asyncio.gather(*(third() for _ in range(10)))
    assert source.asked <= 4


async def test_nothing_is_gathered_while_nobody_listens(
    http: Client, server: WebServer, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.web.source.SHARE_SECONDS", -1.0)
    monkeypatch.setattr(api, "INTERVAL_SECONDS", 0.02)
    async with http.get("/api/v1/stream") as answer:
        await first_event(answer)
    await eventually(lambda: server._streams.open == 0, why="the end of the stream")
    await eventually(lambda: not server._streams._wanted.is_set(), why="the rest")
    asked = source.asked
    for _ in range(3):
        await asyncio.sleep(0.05)
    assert source.asked == asked


async def test_a_stream_without_news_is_kept_alive(
    http: Client, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "KEEP_ALIVE_SECONDS", 0.05)
    source.hangs = True
    async with http.get("/api/v1/stream") as answer:
        lines = [await answer.content.readline() for _ in range(3)]
    assert b": keep-alive\n" in lines


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (DatabaseUnavailable("No server answered."), "database-unavailable"),
        (ValueError("secret row"), "error"),
    ],
)
async def test_the_stream_outlives_a_source_that_fails(
    http: Client, source: Source, busy_status: Status, failure: Exception, code: str
) -> None:
    source.answer = failure
    async with http.get("/api/v1/stream") as answer:
        kind, data = await first_event(answer)
        assert kind == "problem"
        assert msgspec.json.decode(data)["code"] == code
        assert "secret" not in data
        source.answer = busy_status
        assert (await first_event(answer))[0] == "message"


async def test_streams_end_within_a_second_of_stop(http: Client, server: WebServer, source: Source) -> None:
    async with http.get("/api/v1/stream") as fed, http.get("/api/v1/stream") as hungry:
        await first_event(fed)
        source.hangs = True
        began = time.monotonic()
        await server.stop()
        await asyncio.gather(fed.read(), hungry.read())
        assert time.monotonic() - began < 1.0


async def test_a_reader_that_does_not_read_does_not_hold_up_the_end(
    server: WebServer, source: Source, busy_status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "INTERVAL_SECONDS", 0.01)
    source.answer = msgspec.structs.replace(busy_status, process="x" * 2_000_000)
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1)
    writer.write(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await eventually(lambda: server._streams.open == 1 and source.asked > 1, why="a stream that is stuck")
    began = time.monotonic()
    await server.stop()
    assert time.monotonic() - began < 1.5
    writer.close()


async def test_streams_are_limited(http: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MOST_STREAMS", 1)
    async with http.get("/api/v1/stream") as first, http.get("/api/v1/stream") as second:
        assert (first.status, second.status) == (200, 503)


async def test_asking_for_the_head_of_the_stream_opens_none(server: WebServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for method, path in (("HEAD", "/api/v1/stream"), ("GET", "/livez")):
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answers = b""
    async with asyncio.timeout(2):
        while not answers.endswith(b"ok\n"):
            answers += await reader.read(4096)
    assert answers.count(b"HTTP/1.1 200") == 2
    writer.close()
