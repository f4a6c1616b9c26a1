"""The live page: a static shell, its styles and its modules, and the headers that keep it safe.

Owns: / and /static, and the security headers of every answer. Knows no figures: the page's own modules fetch
them from /api/v1/stream, so the shell needs no token.
"""

from __future__ import annotations

import hashlib
from importlib import resources

import msgspec
from aiohttp import hdrs, web

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

SAFETY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    hdrs.SERVER: "pgreflex",
}


class Asset(msgspec.Struct, frozen=True):
    """One file of the page. tag: changes with its bytes."""

    body: bytes
    content_type: str
    tag: str


def assets() -> dict[str, Asset]:
    """Every file of the page by its name."""
    found: dict[str, Asset] = {}
    for file in (resources.files("pipeline.web") / "static").iterdir():
        suffix = file.name[file.name.rfind(".") :]
        if suffix in TYPES:
            body = file.read_bytes()
            found[file.name] = Asset(body, TYPES[suffix], hashlib.sha256(body).hexdigest()[:32])
    return found


class Page:
    """Serves the shell and its files from memory: they are 40 kB, read once."""

    def __init__(self) -> None:
        self._assets = assets()

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_get("/", self.shell)
        router.add_get("/static/{name}", self.static)

    async def shell(self, request: web.Request) -> web.Response:
        """GET /."""
        return self._answer(request, "index.html")

    async def static(self, request: web.Request) -> web.Response:
        """GET /static/{name}."""
        return self._answer(request, request.match_info["name"])

    def _answer(self, request: web.Request, name: str) -> web.Response:
        asset = self._assets.get(name)
        if asset is None:
            raise web.HTTPNotFound
        # no-cache: asked again each time and answered by 304, so a page never mixes two versions
        headers = {
            hdrs.ETAG: f'"{asset.tag}"',
            hdrs.CACHE_CONTROL: "no-cache",
            hdrs.CONTENT_TYPE: asset.content_type,
        }
        if any(known.value in (asset.tag, "*") for known in request.if_none_match or ()):
            del headers[hdrs.CONTENT_TYPE]
            return web.Response(status=304, headers=headers)
        return web.Response(body=asset.body, headers=headers)


async def add_safety_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Put the security headers on an answer."""
    response.headers.update(SAFETY_HEADERS)
