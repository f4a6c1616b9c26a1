"""Who may read and who may change: tokens, loopback binds, the Host header.

Owns: those decisions and the middleware that applies them. Knows nothing of what is being read.

On a loopback bind everyone on the machine may read, unless a viewer token is set; anywhere else a viewer
token is a must. A page in a browser elsewhere could still reach a loopback port under a name that it has
pointed at 127.0.0.1 (DNS rebinding); it cannot forge the Host header, so on a loopback bind that must be a
loopback name or one that was configured. Changing needs the admin token everywhere: that page could send a
form to a loopback port as well, but no token.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Collection, Mapping, Sequence

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from pipeline.errors import ConfigError, PermissionMissing
from pipeline.web.problems import problem

SHORTEST_TOKEN = 16  # characters; below that a token can be guessed over the network
OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/healthz"})  # the page is a shell without figures
OPEN_PREFIXES = ("/static/", "/errors/")
SAFE_METHODS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
SEND = "Send it as: Authorization: Bearer TOKEN"
CHALLENGE: Mapping[str, str] = {hdrs.WWW_AUTHENTICATE: 'Bearer realm="pgreflex"'}


class Tokens(msgspec.Struct, frozen=True):
    """The bearer tokens. viewer: may read. admin: may read and change. None: that role does not exist."""

    viewer: str | None = None
    admin: str | None = None

    def __repr__(self) -> str:
        """Names the roles, never the tokens: a repr ends up in logs."""
        return f"Tokens(viewer={_shown(self.viewer)}, admin={_shown(self.admin)})"


def _shown(token: str | None) -> str:
    return "None" if token is None else "'***'"


class Access:
    """Decides whether a request may read, and whether it may change something.

    host: the address to bind. allowed_hosts: names, besides the loopback ones, that a Host header may carry.
    Raises ConfigError where the figures would be open to the network.
    """

    def __init__(self, host: str, tokens: Tokens | None, allowed_hosts: Collection[str] = ()) -> None:
        self.loopback = is_loopback(host)
        self._hosts = {name.lower().rstrip(".") for name in allowed_hosts} | {"localhost", "127.0.0.1", "::1"}
        self._hosts.add(host.lower())
        tokens = tokens or Tokens()
        for role, token in (("viewer", tokens.viewer), ("admin", tokens.admin)):
            if token is not None and len(token) < SHORTEST_TOKEN:
                raise ConfigError(
                    f"The {role} token is shorter than {SHORTEST_TOKEN} characters.",
                    hint="Make one with: openssl rand -hex 32",
                )
        if not self.loopback and tokens.viewer is None:
            raise ConfigError(
                f"The web server would be open to the network on {host or 'every address'} without a token.",
                hint="Set a viewer token (openssl rand -hex 32 makes one), or bind to 127.0.0.1.",
            )
        self.token_needed = tokens.viewer is not None
        self._admin = None if tokens.admin is None else _digest(tokens.admin)
        self._readers = [_digest(token) for token in (tokens.viewer, tokens.admin) if token is not None]

    def host_allowed(self, header: str | None) -> bool:
        """Whether a Host header may be served. None (not a browser) may: only a browser can be rebound."""
        if not self.loopback or header is None:
            return True
        return host_name(header) in self._hosts

    def may_read(self, request: web.BaseRequest) -> bool:
        """Whether the request may see figures and reasons."""
        return not self.token_needed or _carries(request, self._readers)

    def refusal(self, request: web.BaseRequest) -> web.Response | None:
        """Why the request may not change anything, or None when it may."""
        if self._admin is None:
            refused = PermissionMissing(
                "Nothing can be changed here, because no admin token is set.",
                hint="Set http.admin_token, for example to the output of `openssl rand -hex 32`.",
            )
            return problem(request, refused, status=403)
        if _carries(request, [self._admin]):
            return None
        refused = PermissionMissing("Changing needs the admin token.", hint=SEND)
        if self.token_needed and self.may_read(request):
            return problem(request, refused, status=403)
        return problem(request, refused, status=401, headers=CHALLENGE)

    def middleware(self) -> Middleware:
        """Turns away what may not be served, before any handler sees it."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not self.host_allowed(request.headers.get(hdrs.HOST)):
                refused = PermissionMissing(
                    "This name is not one that the server answers to.",
                    hint="Use 127.0.0.1 or localhost, or add the name to the allowed hosts.",
                )
                return problem(request, refused, status=421)
            if not is_open(request.path) and not self.may_read(request):
                refused = PermissionMissing("Reading needs a viewer token.", hint=SEND)
                return problem(request, refused, status=401, headers=CHALLENGE)
            # what there is not, and what cannot be changed, is told by the router
            if request.method not in SAFE_METHODS and request.match_info.http_exception is None:
                refusal = self.refusal(request)
                if refusal is not None:
                    return refusal
            return await handler(request)

        return guard


def is_open(path: str) -> bool:
    """Whether a path is served without a token."""
    return path in OPEN_PATHS or path.startswith(OPEN_PREFIXES)


def is_loopback(host: str) -> bool:
    """Whether binding to `host` is visible on this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_name(header: str) -> str:
    """The name in a Host header, without its port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower().rstrip(".")


def _carries(request: web.BaseRequest, wanted: Sequence[bytes]) -> bool:
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    given = _digest(token.strip())
    # every token is compared, so the time tells nothing of which one came close
    matches = [hmac.compare_digest(given, one) for one in wanted]
    return scheme.lower() == "bearer" and any(matches)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
