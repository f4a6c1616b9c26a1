"""Middlewares that time the requests of an application's own server: for aiohttp, and for ASGI.

Owns: what the method, the route and the status of a request are called, and which requests are timed. Knows
nothing of what becomes of a timing.

The series is http{method,route,status}. A route is the pattern that matched and never the path, so there are no
more series than the application has routes. What is timed meanwhile gets the route as its label `endpoint`. Web
sockets and streams of events are not timed: how long somebody listens says nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from pipeline.core.timing_context import labelled

UNMATCHED = "unmatched"  # there is no such route
UNKNOWN = "unknown"  # the framework does not tell
DISCONNECTED = 499  # the client went away before there was an answer
EVENT_STREAM = "text/event-stream"
SWITCHED = 101

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Timed(Protocol):
    """Where timings go."""

    def add(self, ms: float, *, error: bool = False) -> None: ...


class Recorder(Protocol):
    """What makes a series."""

    def series(self, name: str, labels: Mapping[str, object] | None = None, source: str = "span") -> Timed: ...


class Requests:
    """Counts the requests of one server."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._series: dict[tuple[str, str, int], Timed] = {}

    def add(self, method: str, route: str, status: int, began: float, *, failed: bool = False) -> None:
        """One has ended. began: by perf_counter. failed: it raised; so does a status from 500 on say."""
        ms = (time.perf_counter() - began) * 1000
        key = (method if method in hdrs.METH_ALL else "other", route, status)
        series = self._series.get(key)
        if series is None:
            labels = {"method": key[0], "route": route, "status": str(status)}
            series = self._series[key] = self._recorder.series("http", labels, "http")
        series.add(ms, error=failed or status >= web.HTTPInternalServerError.status_code)


def http_timing(recorder: Recorder) -> Middleware:
    """The middleware for aiohttp."""
    requests = Requests(recorder)

    @web.middleware
    async def time_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
        began, route, status, failed = time.perf_counter(), route_of(request), 500, True
        try:
            with labelled({"endpoint": route}):
                response = await handler(request)
            status, failed = response.status, False
            if status == SWITCHED or response.content_type == EVENT_STREAM:
                status = 0
        except web.HTTPException as error:  # an answer too
            status, failed = error.status, False
            raise
        except asyncio.CancelledError:
            status, failed = DISCONNECTED, False
            raise
        finally:
            if status:
                requests.add(request.method, route, status, began, failed=failed)
        return response

    return time_requests


def route_of(request: web.Request) -> str:
    """The pattern that matched, as `/orders/{id}`."""
    resource = request.match_info.route.resource
    return UNMATCHED if resource is None else resource.canonical


class AsgiTiming:
    """The middleware for ASGI, around `app`. Whatever is no HTTP request passes through untouched."""

    def __init__(self, app: App, recorder: Recorder) -> None:
        self._app = app
        self._requests = Requests(recorder)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, failed, root = time.perf_counter(), 0, True, scope.get("root_path", "")
        stream = False

        async def note(message: Message) -> None:
            nonlocal status, stream
            if message["type"] == "http.response.start":
                status = message["status"]
                stream = any(
                    key.lower() == b"content-type" and value.startswith(EVENT_STREAM.encode())
                    for key, value in message.get("headers", ())
                )
            await send(message)

        try:
            with labelled({}, late=lambda: _endpoint(scope, root)):
                await self._app(scope, receive, note)
            failed = False
        except asyncio.CancelledError:
            status, failed = status or DISCONNECTED, False
            raise
        finally:
            if not stream:
                route = scope_route(scope, root) or UNKNOWN
                self._requests.add(scope["method"], route, status or 500, began, failed=failed)


def scope_route(scope: Scope, root: str = "") -> str | None:
    """The pattern that matched, as the framework left it in the scope; else the name of what serves it.

    root: the root_path of the whole application. What a mounted application is mounted at stands in front, unless
    that holds parameters itself: their values are in the scope, and not the pattern.
    """
    route = scope.get("route")
    path = getattr(route, "path", None)
    if isinstance(path, str):
        mounted = str(scope.get("root_path", "")).removeprefix(root)
        own = getattr(route, "param_convertors", None)
        fixed = own is not None and set(scope.get("path_params") or ()) <= set(own)
        return mounted + path if fixed else path
    endpoint = scope.get("endpoint")
    name = getattr(endpoint, "__qualname__", None) or (None if endpoint is None else type(endpoint).__qualname__)
    return None if name is None else f"{getattr(endpoint, '__module__', '')}.{name}"


def _endpoint(scope: Scope, root: str) -> Mapping[str, object] | None:
    route = scope_route(scope, root)
    return None if route is None else {"endpoint": route}
