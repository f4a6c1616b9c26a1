"""Timings over HTTP: POST /api/v1/timings.

Owns: what a body may hold, and the verdict on each timing in it. Knows nothing of how timings are kept, and not
who may send them: that is decided before a request comes here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

import msgspec
from aiohttp import hdrs, web

from pipeline.core.window import MAX_LATE_SECONDS, MAX_MS
from pipeline.errors import UsageError

MOST_TIMINGS = 10_000  # in one request
PAUSE = 500  # after so many, 2 ms, others get their turn
FIELDS = frozenset({"name", "ms", "labels", "at", "error"})


class Timed(Protocol):
    """Where a timing goes."""

    def add_at(self, ms: float, at: float, *, error: bool = False) -> bool: ...


class Recorder(Protocol):
    """What makes a series."""

    def series(self, name: str, labels: Mapping[str, object] | None = None, source: str = "span") -> Timed: ...

    def moment(self) -> float: ...

    def reject(self) -> None: ...


class Rejected(msgspec.Struct, frozen=True):
    """A timing that was not counted. index: its place in the body, from 0."""

    index: int
    reason: str


class TimingsApi:
    """recorder: where timings go. They are stored within seconds, as all others are."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_post("/api/v1/timings", self.add)

    async def add(self, request: web.Request) -> web.Response:
        """Count timings; 202 and what was rejected, 422 where all were."""
        given = await _items(request)
        rejected = []
        for index, item in enumerate(given):
            reason = self._take(item)
            if reason is not None:
                rejected.append(Rejected(index, reason))
            if index % PAUSE == PAUSE - 1:
                await asyncio.sleep(0)
        body = {"accepted": len(given) - len(rejected), "rejected": rejected}
        return web.Response(
            status=422 if rejected and len(rejected) == len(given) else 202,
            body=msgspec.json.encode(body),
            content_type="application/json",
            headers={hdrs.CACHE_CONTROL: "no-store"},
        )

    def _take(self, item: Any) -> str | None:
        """Count one; returns why it cannot be counted."""
        now = self._recorder.moment()
        reason = _wrong(item)
        at = now if reason is not None or item.get("at") is None else _moment(item["at"])
        if reason is None and at is None:
            reason = "at is neither Unix seconds nor ISO 8601 with a zone"
        elif reason is None and at is not None and at < now - MAX_LATE_SECONDS:
            reason = f"at is more than {MAX_LATE_SECONDS // 3600} hours ago"
        if reason is not None or at is None:
            self._recorder.reject()
            return reason
        series = self._recorder.series(item["name"], item.get("labels"))
        return None if series.add_at(item["ms"], at, error=item.get("error", False)) else "it could not be counted"


async def _items(request: web.Request) -> list[Any]:
    text = await request.read()
    if request.content_type != "application/json":
        raise UsageError("the body is not application/json", hint="Send Content-Type: application/json.")
    try:
        given = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the body is no JSON: {error}", hint='Such as {"name": "render", "ms": 12.5}.') from None
    items = given if isinstance(given, list) else [given]
    if len(items) > MOST_TIMINGS:
        raise UsageError(f"{len(items)} timings are too many", hint=f"Send {MOST_TIMINGS} at a time at most.")
    return items


def _wrong(item: Any) -> str | None:
    """What is wrong with the form of one timing, or None."""
    if not isinstance(item, dict):
        return "it is no object"
    name, ms, labels, error = item.get("name"), item.get("ms"), item.get("labels"), item.get("error")
    wrong = None
    if unknown := item.keys() - FIELDS:
        wrong = f"there is no field {min(unknown)[:50]}; fields are name, ms, labels, at, error"
    elif not isinstance(name, str) or not name:
        wrong = "name is no text, or empty"
    elif isinstance(ms, bool) or not isinstance(ms, int | float) or not 0 <= ms <= MAX_MS:
        wrong = f"ms is no number from 0 to {MAX_MS:.0e}"
    elif labels is not None and not isinstance(labels, dict):
        wrong = "labels is no object"
    elif labels and not all(value is None or isinstance(value, str | int | float) for value in labels.values()):
        wrong = "labels holds something else than texts, numbers, true, false and null"
    elif error is not None and not isinstance(error, bool):
        wrong = "error is neither true nor false"
    return wrong


def _moment(at: Any) -> float | None:
    try:
        if isinstance(at, int | float) and not isinstance(at, bool):
            return float(at)
        when = datetime.fromisoformat(at)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if when.tzinfo is None else when.timestamp()
