"""Plans over HTTP: /api/v1/plans.

Owns: the route and what its parameters may be. Knows no SQL, and not who may read: that is decided before.
"""

from __future__ import annotations

import re

from aiohttp import hdrs, web

from pipeline.db.connection import Database
from pipeline.db.plans import PlanStore
from pipeline.errors import UsageError
from pipeline.web.performance import MOST_ROWS, answer, known, row_limit, span

FORMATS = ("json", "text")


class PlansApi:
    """database: made by `view_database`, opened elsewhere."""

    def __init__(self, database: Database) -> None:
        self._store = PlanStore(database)

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_get("/api/v1/plans", self.plans)

    async def plans(self, request: web.Request) -> web.Response:
        """?fingerprint=...&format=json|text&limit=20, or ?over=24h&limit=20 for what has changed."""
        given = known(request, "fingerprint", "format", "over", "limit")
        most = row_limit(given, MOST_ROWS)
        if "fingerprint" not in given:
            if "format" in given:
                raise UsageError("a format is for the plans of one query", hint="Add ?fingerprint=...")
            over = span("over", given.get("over", "24h"))
            return answer({"over_seconds": over, "changes": await self._store.changes(over, most)})
        if "over" in given:
            raise UsageError("the plans of one query are told as far as they are kept", hint="Leave `over` out.")
        fingerprint = given["fingerprint"]
        if not re.fullmatch("[0-9a-f]{16}", fingerprint):
            raise UsageError("a fingerprint is 16 characters of 0-9 and a-f", hint="See `pgreflex timings top`.")
        form = given.get("format", FORMATS[0])
        if form not in FORMATS:
            raise UsageError(f"there is no format {form[:50]}", hint=f"Formats: {', '.join(FORMATS)}.")
        found = await self._store.plans(fingerprint, most)
        if form == "text":
            return web.Response(
                text="\n\n".join(plan.text for plan in found) + "\n" * bool(found),
                content_type="text/plain",
                charset="utf-8",
                headers={hdrs.CACHE_CONTROL: "no-store"},
            )
        asked = await self._store.turn(fingerprint)
        return answer({"fingerprint": fingerprint, "asked": asked, "plans": found})
