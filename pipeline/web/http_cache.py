"""Middleware for an application's own aiohttp server: what a response depends on, and until when it is good.

Owns: ETag, 304, Cache-Control and Cache-Groups. Knows nothing of the cache: it is handed what tells it what was
read.

How long a response may be kept rests on what was read through the cache while it was made: nothing is promised of
one that read nothing there, and nothing for longer than the values in it are good.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from pipeline.core.groups import MOST_GROUPS, cache_groups, groups_of

CACHE_GROUPS = "Cache-Groups"
SAFE = (hdrs.METH_GET, hdrs.METH_HEAD)


class Seen(Protocol):
    """What was read while a response was made."""

    stale: bool
    tags: set[str]
    expires_at: float
    """When the first of the values ends, on the clock; math.inf where only a change ends them."""


class Lifetime:
    """What Cache-Control says, in seconds. max_age: in the browser; shared_max_age: in shared caches, which can be
    told what has changed, as browsers cannot.
    """

    def __init__(
        self,
        *,
        max_age: float = 0,
        shared_max_age: float | None = None,
        stale_while_revalidate: float = 0,
        stale_if_error: float = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._max_age = max_age
        self._shared_max_age = shared_max_age
        self._further = {
            "stale-while-revalidate": stale_while_revalidate,
            "stale-if-error": stale_if_error,
        }

    def header(self, seen: Seen, *, private: bool) -> str:
        """The value of Cache-Control for what was seen. private: no shared cache may keep it."""
        left = 0.0 if seen.stale or not seen.tags else max(seen.expires_at - self._clock(), 0.0)
        shared = self._shared_max_age is not None and not private
        said = ["public" if shared else "private", f"max-age={int(min(self._max_age, left))}"]
        if shared and self._shared_max_age is not None:
            said.append(f"s-maxage={int(min(self._shared_max_age, left))}")
        if not left:
            said.append("no-cache")
        else:
            said += [f"{name}={int(span)}" for name, span in self._further.items() if span]
        return ", ".join(said)


def http_cache(reads: Callable[[], AbstractAsyncContextManager[Any]], lifetime: Lifetime) -> Middleware:
    """The middleware. reads: gives a Seen that is told of all that is read inside."""

    @web.middleware
    async def add_cache_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method not in SAFE:
            return await handler(request)
        async with reads() as seen:
            response = await handler(request)
        if response.status != web.HTTPOk.status_code or response.prepared:
            return response
        headers, groups = response.headers, groups_of(seen.tags)
        if hdrs.CACHE_CONTROL not in headers:
            told = hdrs.AUTHORIZATION in request.headers or hdrs.COOKIE in request.headers
            of_a_person = told or bool(response.cookies)
            headers[hdrs.CACHE_CONTROL] = lifetime.header(seen, private=of_a_person or len(groups) > MOST_GROUPS)
        if seen.tags and CACHE_GROUPS not in headers:
            headers[CACHE_GROUPS] = cache_groups(groups)
        body = response.body if isinstance(response, web.Response) else None
        if isinstance(body, (bytes, bytearray)) and hdrs.ETAG not in headers:
            headers[hdrs.ETAG] = f'W/"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
        return _not_modified(request, response) or response

    return add_cache_headers


def _not_modified(request: web.Request, response: web.StreamResponse) -> web.Response | None:
    """304 where the reader has it already: weak comparison, as RFC 9110 wants it for If-None-Match."""
    etag = response.etag
    if etag is None or not any(known.value in (etag.value, "*") for known in request.if_none_match or ()):
        return None
    kept = (hdrs.ETAG, hdrs.CACHE_CONTROL, CACHE_GROUPS, hdrs.VARY, hdrs.CONTENT_LOCATION, hdrs.EXPIRES)
    return web.Response(
        status=304, headers={name: response.headers[name] for name in kept if name in response.headers}
    )
