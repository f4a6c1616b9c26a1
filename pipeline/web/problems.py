"""Every error as application/problem+json (RFC 9457).

Owns: the shape of errors, and which status goes with which error of pipeline/errors.py. Knows no route.

The type is /errors/<code>, with the codes of pipeline/errors.py, and that address explains the code. What is
not an error of ours is logged here and answered without its text: it may hold rows or addresses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus

import msgspec
import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from pipeline.errors import (
    Busy,
    ConfigError,
    DatabaseUnavailable,
    NotInstalled,
    NotWatchable,
    PermissionMissing,
    PgreflexError,
    TaskError,
    UsageError,
)

LONGEST_INSTANCE = 200  # characters of a path that are echoed

STATUSES: Mapping[type[PgreflexError], int] = {
    UsageError: 400,
    ConfigError: 500,
    PermissionMissing: 403,
    NotWatchable: 422,
    TaskError: 422,
    Busy: 503,
    DatabaseUnavailable: 503,
    NotInstalled: 503,
}

log = structlog.get_logger("pgreflex.web")


class Problem(msgspec.Struct, frozen=True):
    """The body. type: address of the code's explanation. instance: the path that was asked for."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    hint: str


def status_of(error: PgreflexError) -> int:
    """The HTTP status of an error: that of its class, or of the nearest one above."""
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)


def problem(
    request: web.BaseRequest,
    error: PgreflexError,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """The answer to a request that failed with `error`."""
    status = status_of(error) if status is None else status
    body = Problem(
        type=f"/errors/{error.code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=error.message,
        instance=request.path[:LONGEST_INSTANCE],
        code=error.code,
        hint=error.hint,
    )
    response = web.Response(
        status=status,
        body=msgspec.json.encode(body),
        content_type="application/problem+json",
        headers={hdrs.CACHE_CONTROL: "no-store", **(headers or {})},
    )
    if status == 503:
        response.headers.setdefault(hdrs.RETRY_AFTER, "1")
    return response


@web.middleware
async def errors_as_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers every failure of the handlers below it."""
    try:
        return await handler(request)
    except PgreflexError as error:
        return problem(request, error)
    except web.HTTPException as error:
        return _of_http(request, error)
    except Exception as error:
        log.exception("request failed", method=request.method, path=request.path, error=type(error).__name__)
        broken = PgreflexError(
            "The server failed to answer; the reason is in its log.", hint="Report it if it happens again."
        )
        return problem(request, broken, status=500)


def _of_http(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    if error.status < 400:
        return error
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        refused = UsageError(f"{request.method} is not possible here.", hint=f"Possible: {allowed}")
        return problem(request, refused, status=405, headers={hdrs.ALLOW: allowed})
    if isinstance(error, web.HTTPNotFound):
        return problem(request, UsageError("There is nothing at this address.", hint="Start at /"), status=404)
    refused = UsageError(f"The request cannot be served: {error.reason}.")
    return problem(request, refused, status=error.status)


def every_error() -> Iterator[type[PgreflexError]]:
    """The base class and every class below it."""
    waiting = [PgreflexError]
    while waiting:
        kind = waiting.pop()
        waiting.extend(kind.__subclasses__())
        yield kind


async def explain(request: web.Request) -> web.Response:
    """GET /errors/{code}: what a problem type means and what to do."""
    code = request.match_info["code"]
    kind = next((kind for kind in every_error() if kind.code == code), None)
    if kind is None:
        raise web.HTTPNotFound
    lines = [code, "", (kind.__doc__ or "").partition("\n")[0], kind.default_hint]
    return web.Response(text="\n".join(lines).rstrip() + "\n")
