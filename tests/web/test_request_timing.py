"""The middlewares for an application's own server: which series a request belongs to, on aiohttp and on ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

import pipeline
from pipeline.app import timing
from pipeline.core.timing_context import current_labels
from pipeline.core.window import Windows

Message = MutableMapping[str, Any]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Windows:
    """The recorder of the process, a new one."""
    windows = Windows(lambda: 100.0)
    monkeypatch.setattr(timing, "recorder", windows)
    return windows


def seen(recorder: Windows) -> dict[tuple[str, str, str], tuple[int, int]]:
    """Count and errors by method, route and status."""
    parts = [part for part in recorder.take(None) if part.series.name == "http"]
    assert {part.series.source for part in parts} <= {"http"}
    return {
        (labels["method"], labels["route"], labels["status"]): (part.digest.count, part.errors)
        for part in parts
        for labels in [part.series.labels]
    }


async def test_requests_to_aiohttp_are_series_by_method_route_and_status(recorder: Windows) -> None:
    async def show(request: web.Request) -> web.StreamResponse:
        match request.match_info["id"]:
            case "gone":
                raise web.HTTPGone
            case "bad":
                raise ValueError
            case "events":
                stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
                await stream.prepare(request)
                return stream
        pipeline.record("inside", 1.0)
        return web.json_response(dict(current_labels()))

    app = web.Application(middlewares=[pipeline.http_timing()])
    app.router.add_get("/orders/{id}", show)
    async with TestClient(TestServer(app)) as client:
        for way in ("1", "2", "gone", "bad", "events"):
            answer = await client.get(f"/orders/{way}")
            if way == "1":
                assert await answer.json() == {"endpoint": "/orders/{id}"}
        await client.post("/orders/1")
        await client.request("PROPFIND", "/orders/1")
        await client.request("MKCOL", "/else")
    assert set(labels(recorder, "inside")) == {"/orders/{id}"}
    route = "/orders/{id}"
    assert seen(recorder) == {
        ("GET", route, "200"): (2, 0),
        ("GET", route, "410"): (1, 0),
        ("GET", route, "500"): (1, 1),
        ("POST", "unmatched", "405"): (1, 0),
        ("other", "unmatched", "405"): (1, 0),
        ("other", "unmatched", "404"): (1, 0),
    }


def labels(recorder: Windows, name: str) -> list[str]:
    return [part.series.labels["endpoint"] for part in recorder.parts() if part.series.name == name]


async def test_a_client_of_aiohttp_that_goes_away_is_no_error_of_the_server(recorder: Windows) -> None:
    came = asyncio.Event()

    async def slow(_request: web.Request) -> web.Response:
        came.set()
        await asyncio.sleep(60)
        return web.Response()

    app = web.Application(middlewares=[pipeline.http_timing()])
    app.router.add_get("/slow", slow)
    server = TestServer(app, handler_cancellation=True)
    async with TestClient(server) as client:
        asking = asyncio.create_task(client.get("/slow"))
        await came.wait()
        asking.cancel()
        await asyncio.wait([asking])
        async with asyncio.timeout(10):
            while not recorder.parts():
                await asyncio.sleep(0.01)
    assert seen(recorder) == {("GET", "/slow", "499"): (1, 0)}


async def call(app: Any, kind: str = "http", **scope: Any) -> list[Message]:
    """What an ASGI application sends."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": f"{kind}.disconnect"}

    await pipeline.TimingMiddleware(app)({"type": kind, "method": "GET", **scope}, receive, send)
    return sent


def answering(status: int = 200, *, headers: tuple[tuple[bytes, bytes], ...] = (), **found: Any) -> Any:
    """An application whose router leaves `found` in the scope."""

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        scope.update(found)
        pipeline.record("inside", 1.0)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for more in (True, False):
            await send({"type": "http.response.body", "body": b"x", "more_body": more})

    return app


async def test_requests_to_asgi_are_series_by_the_route_that_the_framework_found(recorder: Windows) -> None:
    route = SimpleNamespace(path="/orders/{id}", param_convertors={"id": None})
    assert len(await call(answering(route=route, path_params={"id": 7}))) == 3
    await call(answering(route=route, path_params={"id": 7}, root_path="/root/shop"), root_path="/root")
    await call(answering(route=route, path_params={"id": 7, "shop": 3}, root_path="/shop/3"))
    await call(answering(503, endpoint=answering))
    await call(answering(404), method="BREW")
    await call(answering(headers=((b"Content-Type", b"text/event-stream; charset=utf-8"),)))
    assert "/orders/{id}" in labels_of(recorder)
    assert seen(recorder) == {
        ("GET", "/orders/{id}", "200"): (2, 0),
        ("GET", "/shop/orders/{id}", "200"): (1, 0),
        ("GET", f"{__name__}.answering", "503"): (1, 1),
        ("other", "unknown", "404"): (1, 0),
    }


def labels_of(recorder: Windows) -> set[str]:
    return {part.series.labels.get("endpoint", "") for part in recorder.parts() if part.series.name == "inside"}


async def test_what_an_asgi_application_raises_is_an_error_and_passes_through(recorder: Windows) -> None:
    async def fails(_scope: Any, _receive: Any, _send: Any) -> None:
        raise KeyError

    async def fails_late(scope: Any, receive: Any, send: Any) -> None:
        await answering(200)(scope, receive, send)
        raise KeyError

    async def is_cancelled(_scope: Any, _receive: Any, _send: Any) -> None:
        raise asyncio.CancelledError

    for app in (fails, fails_late):
        with pytest.raises(KeyError):
            await call(app)
    with pytest.raises(asyncio.CancelledError):
        await call(is_cancelled)
    assert seen(recorder) == {
        ("GET", "unknown", "500"): (1, 1),
        ("GET", "unknown", "200"): (1, 1),
        ("GET", "unknown", "499"): (1, 0),
    }


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_what_is_no_request_passes_through_asgi_untouched(recorder: Windows, kind: str) -> None:
    given: list[Any] = []

    async def app(*args: Any) -> None:
        given.extend(args)

    scope, receive, send = {"type": kind}, object(), object()
    await pipeline.TimingMiddleware(app)(scope, receive, send)  # type: ignore[arg-type]
    assert given == [scope, receive, send]
    assert recorder.take(None) == []
