"""Timings over HTTP: /api/v1/performance and /api/v1/series.

Owns: the routes and what their parameters may be. Knows no SQL, and not who may read: that is decided before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import hdrs, web

from pipeline.core.span import parse_span
from pipeline.db.connection import Database
from pipeline.db.server_view import ServerViews
from pipeline.db.timing_view import ORDERS, Labels, TimingViews
from pipeline.errors import UsageError

METRICS = ("summary", "slow_queries", "statements", "waits", "blocked")
OF_SERVER = METRICS[2:]  # which have one order and no labels
MOST_ROWS = 1_000
MOST_DRAWN = 100  # series with points; each may have 1,500
OLDEST_SECONDS = 400 * 86_400.0
DEFAULT_OVER = "1h"


class PerformanceApi:
    """database: made by `view_database`, opened elsewhere."""

    def __init__(self, database: Database) -> None:
        self._views = TimingViews(database)
        self._server = ServerViews(database)

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_get("/api/v1/performance", self.performance)
        router.add_get("/api/v1/series", self.series)

    async def performance(self, request: web.Request) -> web.Response:
        """?metric=summary|slow_queries&over=1h&by=total&limit=20&label=key=value, or statements|waits|blocked."""
        metric = request.query.get("metric", METRICS[0])
        narrow = () if metric in OF_SERVER else ("by", "label")
        given = known(request, "metric", "over", "limit", *narrow)
        if metric not in METRICS:
            raise UsageError(f"there is no metric {metric[:50]}", hint=f"Metrics: {', '.join(METRICS)}.")
        over, limit = _over(given), row_limit(given, MOST_ROWS)
        if metric in OF_SERVER:
            return await self._of_server(metric, over, limit)
        by, labels = _by(given), _labels(request)
        told: dict[str, Any] = {"metric": metric, "over_seconds": over, "by": by}
        if metric == "slow_queries":
            return answer({**told, "queries": await self._views.slow_queries(over, by, limit, labels=labels)})
        return answer({**told, "names": await self._views.top_series(over, by, limit, labels=labels, per="name")})

    async def _of_server(self, metric: str, over: float, limit: int) -> web.Response:
        if metric == "blocked":
            return answer({"metric": metric, "blocked": await self._server.blocked(limit)})
        rows = await (self._server.waits if metric == "waits" else self._server.statements)(over, limit)
        return answer({"metric": metric, "over_seconds": over, metric: rows})

    async def series(self, request: web.Request) -> web.Response:
        """?source=http&name=http&over=1h&by=total&limit=20&label=key=value&step=1m, or step=auto."""
        given = known(request, "source", "name", "over", "by", "limit", "label", "step")
        over, by = _over(given), _by(given)
        limit = row_limit(given, MOST_DRAWN if "step" in given else MOST_ROWS)
        found = await self._views.top_series(
            over, by, limit, source=given.get("source"), name=given.get("name"), labels=_labels(request)
        )
        told: dict[str, Any] = {"over_seconds": over, "by": by}
        if "step" not in given:
            return answer({**told, "series": found})
        step = None if given["step"] == "auto" else span("step", given["step"])
        histories = await self._views.history([(one.exactly, None) for one in found], over, step)
        drawn = [
            {**msgspec.to_builtins(one), "points": points} for one, points in zip(found, histories, strict=True)
        ]
        return answer({**told, "series": drawn})


def known(request: web.Request, *names: str) -> Mapping[str, str]:
    unknown = set(request.query) - set(names)
    if unknown:
        raise UsageError(f"there is no parameter {min(unknown)[:50]}", hint=f"Parameters: {', '.join(names)}.")
    twice = [name for name in request.query if name != "label" and len(request.query.getall(name)) > 1]
    if twice:
        raise UsageError(f"{twice[0]} is given twice", hint="Give it once.")
    return request.query


def span(name: str, text: str) -> float:
    try:
        seconds = parse_span(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= OLDEST_SECONDS:
        raise UsageError(f"{name} is no span of time up to 400 days", hint=f"Such as ?{name}=5m, 1h, 30d or 90.")
    return seconds


def _over(given: Mapping[str, str]) -> float:
    return span("over", given.get("over", DEFAULT_OVER))


def _by(given: Mapping[str, str]) -> str:
    by = given.get("by", ORDERS[0])
    if by not in ORDERS:
        raise UsageError(f"cannot order by {by[:50]}", hint=f"One of {', '.join(ORDERS)}.")
    return by


def row_limit(given: Mapping[str, str], most: int) -> int:
    text = given.get("limit", "20")
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= most:
        raise UsageError(f"limit is a whole number from 1 to {most}", hint="Such as ?limit=50.")
    return int(text)


def _labels(request: web.Request) -> Labels:
    pairs = [text.partition("=") for text in request.query.getall("label", [])]
    if any(not name or not sign for name, sign, _ in pairs):
        raise UsageError(
            "a label has no name or no value", hint="Such as ?label=region=eu; more of them: &label=..."
        )
    return {name: text for name, _, text in pairs} or None


def answer(value: object) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), content_type="application/json", headers={hdrs.CACHE_CONTROL: "no-store"}
    )
