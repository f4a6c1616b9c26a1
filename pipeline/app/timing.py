"""Timings of this process: spans of one's own code, and the labels that what is timed inside gets.

Owns: the recorder of the process, which needs no client: what it holds goes to the database of the client that was
opened first and still is. Knows nothing of how timings are kept.

    with pipeline.timer("render", template="invoice"):
        ...
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import update_wrapper
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pipeline.core.timing_context import current_labels, labelled
from pipeline.core.window import Live, Windows
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from aiohttp.typedefs import Middleware

    from pipeline.web.request_timing import App, Receive, Scope, Send

__all__ = ["TimingMiddleware", "http_timing", "labels", "record", "recorder", "timer"]

P = ParamSpec("P")
R = TypeVar("R")

recorder = Windows(time.time)
os.register_at_fork(after_in_child=recorder.reset)


class timer:
    """Times a block (`with`, `async with`) or a function (as decorator, plain or async) as the series `name`.

    labels: those of this series; the ones that hold around it are added. An exception counts as an error and
    passes through. Make one for each block; as a decorator it serves any number of calls at once. Raises
    UsageError when it decorates a generator function, whose run is broken up by its caller.
    """

    __slots__ = ("_began", "_labels", "_live", "_name")

    def __init__(self, name: str, /, **labels: object) -> None:
        self._name = name
        self._labels = labels
        self._live: Live | None = None
        self._began: list[float] = []

    def __enter__(self) -> timer:
        self._began.append(time.perf_counter())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        self._end(self._began.pop(), kind is not None)

    async def __aenter__(self) -> timer:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        self._end(self._began.pop(), kind is not None)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        if isgeneratorfunction(function) or isasyncgenfunction(function):
            raise UsageError(
                f"{function.__name__} is a generator function, and most of its time is its caller's",
                hint="Time what it does between its yields: with pipeline.timer(...): ...",
            )
        timed: Any = self._of_coroutine(function) if iscoroutinefunction(function) else self._of_plain(function)
        return update_wrapper(timed, function)

    def _of_plain(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began, failed = time.perf_counter(), True
            try:
                result = function(*args, **kwargs)
                failed = False
            finally:
                self._end(began, failed)
            return result

        return timed

    def _of_coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def timed(*args: Any, **kwargs: Any) -> Any:
            began, failed = time.perf_counter(), True
            try:
                result = await function(*args, **kwargs)
                failed = False
            finally:
                self._end(began, failed)
            return result

        return timed

    def _end(self, began: float, failed: bool) -> None:
        ms = (time.perf_counter() - began) * 1000
        around = current_labels()
        if around:
            _series(self._name, self._labels, around).add(ms, error=failed)
            return
        live = self._live
        if live is None:
            live = self._live = recorder.series(self._name, self._labels)
        live.add(ms, error=failed)


def record(name: str, ms: float, /, *, error: bool = False, **labels: object) -> None:
    """Count one timing of `ms` milliseconds that has just ended. Never raises: what is no duration is counted."""
    _series(name, labels, current_labels()).add(ms, error=error)


def labels(**labels: object) -> AbstractContextManager[None]:
    """Inside, every query and span gets these labels too: `with pipeline.labels(endpoint="/orders", user=7):`.

    They nest, and hold in tasks that are started inside. Each combination of labels is a series of its own.
    """
    return labelled(labels)


def _series(name: str, labels: Mapping[str, object], around: Mapping[str, object]) -> Live:
    return recorder.series(name, {**around, **labels} if around else labels)


def http_timing() -> Middleware:
    """Middleware for an aiohttp server: its response times by method, route and status, as the series `http`.

    Queries and spans inside get the route as their label `endpoint`. Put it first, so that it sees what the
    others do.
    """
    from pipeline.web.request_timing import http_timing as timing_of  # noqa: PLC0415 - aiohttp only where it is used

    return timing_of(recorder)


class TimingMiddleware:
    """The same for ASGI: `app.add_middleware(pipeline.TimingMiddleware)`, or around any ASGI application."""

    def __init__(self, app: App) -> None:
        from pipeline.web.request_timing import AsgiTiming  # noqa: PLC0415 - as above

        self._timing = AsgiTiming(app, recorder)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._timing(scope, receive, send)
