"""The probes: /livez, /readyz, /healthz.

Owns: what they answer. Asks only `live()` of the source: they answer while `status()` hangs.

/livez answers as long as the loop turns: restart the process when it does not. /readyz tells whether the
process does its work: send it no traffic when it does not; this is the one to use for load balancers and
readiness probes. /healthz tells the same to tools that know only this name, in one word.
"""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import hdrs, web

from pipeline.web.access import Access
from pipeline.web.source import Liveness, StatusSource

DRAIN_RETRY_SECONDS = 10  # by then a drained process has been replaced, or is gone


class Probes:
    """The three handlers."""

    def __init__(self, source: StatusSource, access: Access) -> None:
        self._source = source
        self._access = access

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_get("/livez", self.livez)
        router.add_get("/readyz", self.readyz)
        router.add_get("/healthz", self.healthz)

    async def livez(self, request: web.Request) -> web.Response:
        """200: the loop turns."""
        return _answer(200, "ok")

    async def readyz(self, request: web.Request) -> web.Response:
        """200 when every service is well and the process is not draining; ?verbose lists the checks."""
        live = self._source.live()
        if "verbose" not in request.query:
            return _verdict(live, _short(live))
        lines = [*_checks(live, reasons=self._access.may_read(request)), f"readyz {_short(live)}"]
        return _verdict(live, "\n".join(lines))

    async def healthz(self, request: web.Request) -> web.Response:
        """As /readyz, in one word."""
        live = self._source.live()
        return _verdict(live, "ok" if live.ready else "unhealthy")


def _short(live: Liveness) -> str:
    if live.draining:
        return "draining"
    unwell = ", ".join(name for name, health in live.services.items() if not health.ok)
    return f"not ready: {unwell}" if unwell else "ok"


def _checks(live: Liveness, *, reasons: bool) -> Iterator[str]:
    """One line a check. reasons: whether the reader may see why; a reason can name hosts and databases."""
    for name, health in live.services.items():
        if health.ok:
            yield f"[+]{name} ok"
        else:
            yield f"[-]{name} failed: {health.detail if reasons else 'reason withheld'}"
    yield "[-]draining" if live.draining else "[+]not draining ok"


def _verdict(live: Liveness, text: str) -> web.Response:
    response = _answer(200 if live.ready else 503, text)
    if live.draining:
        response.headers[hdrs.RETRY_AFTER] = str(DRAIN_RETRY_SECONDS)
    return response


def _answer(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text + "\n", headers={hdrs.CACHE_CONTROL: "no-store"})
