"""Jobs and queues over HTTP: /api/v1/jobs and /api/v1/queues.

Owns: the routes, what their bodies may hold, and which status an answer has. Knows no SQL, and not who may change
what: that is decided before a request comes here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from aiohttp import hdrs, web
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from pipeline.core.job_filter import ENDED, parse_filter
from pipeline.core.limits import MOST, Rate
from pipeline.db.connection import Database
from pipeline.db.job_admin import JobAdmin
from pipeline.db.job_view import HIGHEST, JobView, JobViews
from pipeline.db.jobs import JobStore
from pipeline.db.queue_admin import QueueAdmin, meant
from pipeline.errors import TaskError, UsageError
from pipeline.web.problems import problem

M = TypeVar("M", bound=BaseModel)
MOST_JOBS = 1_000
Seconds = Annotated[float, Field(gt=0, le=366 * 86_400)]
Limit = Annotated[int, Field(ge=0, le=MOST)]
Handler = Callable[[web.Request], Awaitable[web.Response]]


class Input(BaseModel):
    """A body; a field that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid", strict=True)


class EnqueueInput(Input):
    """A job to add. Times are ISO 8601 with a zone, spans seconds; what is left out comes from the task."""

    task: str
    args: dict[str, Any] = {}
    queue: str | None = None
    priority: Annotated[int | None, Field(ge=-(2**15), le=2**15 - 1)] = None
    run_at: Annotated[AwareDatetime | None, Field(strict=False)] = None
    max_attempts: Annotated[int | None, Field(ge=1, le=MOST)] = None
    timeout: Seconds | None = None
    key: str | None = None
    expires_at: Annotated[AwareDatetime | None, Field(strict=False)] = None
    unique_key: str | None = None
    unique_for: Seconds | None = None
    unique_states: list[str] | None = None
    on_clash: Literal["skip", "replace", "reschedule", "merge"] | None = None


class CancelInput(Input):
    """Why a job is cancelled."""

    reason: str | None = None


class SetInput(Input):
    """What is to be set for a queue; 0 takes a limit away, and so does the rate `none`."""

    concurrency: Limit | None = None
    rate: str | None = None
    slots: Limit | None = None
    weight: Annotated[int | None, Field(ge=1, le=1000)] = None


class NoInput(Input):
    """A body without fields."""


class JobsApi:
    """store: for what is added. database: made by `view_database`, for all else. Both are opened elsewhere."""

    def __init__(self, store: JobStore, database: Database) -> None:
        self._store = store
        self._views = JobViews(database)
        self._admin = JobAdmin(database)
        self._queues = QueueAdmin(database)

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_get("/api/v1/jobs", self.page)
        router.add_post("/api/v1/jobs", self.enqueue)
        router.add_get("/api/v1/jobs/{id}", self.show)
        router.add_post("/api/v1/jobs/{id}/retry", self.retry)
        router.add_post("/api/v1/jobs/{id}/cancel", self.cancel)
        router.add_get("/api/v1/queues", self.queues)
        router.add_post("/api/v1/queues/{name}/set", self.set)
        for verb in ("pause", "resume", "drain"):
            router.add_post(f"/api/v1/queues/{{name}}/{verb}", self._holder(verb))

    async def page(self, request: web.Request) -> web.Response:
        """The newest jobs: ?where=FILTER&limit=50&after=ID."""
        unknown = set(request.query) - {"where", "limit", "after"}
        if unknown:
            raise UsageError(f"there is no parameter {min(unknown)}", hint="Parameters: where, limit, after.")
        limit = _number("limit", request.query.get("limit", "50"), MOST_JOBS)
        after = request.query.get("after")
        wanted = parse_filter(request.query.get("where", ""))
        found = await self._views.page(wanted, limit, after=None if after is None else _number("after", after))
        return _answer({"jobs": found, "next": found[-1].id if len(found) == limit else None})

    async def show(self, request: web.Request) -> web.Response:
        """Everything about one job."""
        try:
            one = await self._view(request)
        except TaskError as error:
            return problem(request, error, status=404)
        return _answer({**msgspec.to_builtins(one), "log": await self._views.log(one.id)})

    async def enqueue(self, request: web.Request) -> web.Response:
        """Add a job; 201 and its id."""
        given = (await body_of(request, EnqueueInput)).model_dump()
        task, args = given.pop("task"), given.pop("args")
        with meant():
            job = await self._store.enqueue(task, args, **given)
        return _answer({"job": job}, status=201, location=f"/api/v1/jobs/{job}")

    async def retry(self, request: web.Request) -> web.Response:
        """Let a job run again."""
        await body_of(request, NoInput)
        return await self._change(request, self._admin.retry, "retried")

    async def cancel(self, request: web.Request) -> web.Response:
        """End a job that has not ended."""
        reason = (await body_of(request, CancelInput)).reason
        return await self._change(request, lambda ids: self._admin.cancel(ids, reason), "cancelled")

    async def queues(self, request: web.Request) -> web.Response:
        """Every queue, how it stands and what is set."""
        return _answer({"queues": await self._queues.all(), "keys": await self._queues.key_limits()})

    async def set(self, request: web.Request) -> web.Response:
        """Set what is given for a queue, keep the rest."""
        given = await body_of(request, SetInput)
        if given == SetInput():
            raise UsageError("nothing is given to set", hint=f"Fields: {', '.join(SetInput.model_fields)}.")
        rate = _rate(given.rate)
        name = request.match_info["name"]
        await self._queues.set(
            name, concurrency=given.concurrency, rate=rate, slots=given.slots, weight=given.weight
        )
        return _answer({"set": name})

    def _holder(self, verb: str) -> Handler:
        async def hold(request: web.Request) -> web.Response:
            await body_of(request, NoInput)
            name = request.match_info["name"]
            await getattr(self._queues, verb)(name)
            return _answer({{"pause": "paused", "resume": "resumed", "drain": "draining"}[verb]: name})

        return hold

    async def _view(self, request: web.Request) -> JobView:
        text = request.match_info["id"]
        if not text.isdecimal() or int(text[:20]) > HIGHEST:
            raise TaskError(f"there is no job {text[:20]}", hint="The id of a job is a whole number.")
        return await self._views.show(int(text))

    async def _change(
        self, request: web.Request, change: Callable[[list[int]], Awaitable[Any]], done: str
    ) -> web.Response:
        try:
            one = await self._view(request)
        except TaskError as error:
            return problem(request, error, status=404)
        if await change([one.id]):
            return _answer({done: one.id})
        state = f"has {one.state}" if one.state in ENDED else f"is {one.state}"
        return problem(request, TaskError(f"job {one.id} {state}, so it cannot be {done}"), status=409)


async def read_body(request: web.Request) -> bytes:
    """The body. Raises UsageError for one that is not declared to be JSON."""
    text = await request.read()
    if text and request.content_type != "application/json":
        raise UsageError("the body is not application/json", hint="Send Content-Type: application/json.")
    return text


async def body_of(request: web.Request, model: type[M]) -> M:
    """The body as `model`; an empty one is {}. Raises UsageError that names the field."""
    text = await read_body(request)
    try:
        return model.model_validate_json(text or b"{}")
    except ValidationError as error:
        raise wrong_field(error, model) from None


def wrong_field(error: ValidationError, model: type[BaseModel]) -> UsageError:
    """What is wrong with a body, and which fields there are."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = ".".join(map(str, first["loc"]))
    known = ", ".join(model.model_fields) or "none"
    return UsageError(f"{field or 'the body'}: {first['msg']}", hint=f"Fields: {known}.")


def _rate(text: str | None) -> Rate | int | None:
    if text is None or text in ("none", "0"):
        return None if text is None else 0
    try:
        return Rate.parse(text)
    except ValueError as error:
        raise UsageError(str(error), hint="Or none, to take the rate away.") from None


def _number(name: str, text: str, most: int = HIGHEST) -> int:
    if not text.isdecimal() or len(text) > 19 or not 1 <= int(text) <= most:
        raise UsageError(f"{name} is a whole number from 1 to {most}", hint="Such as ?limit=50.")
    return int(text)


def _answer(value: Any, *, status: int = 200, location: str | None = None) -> web.Response:
    headers = {hdrs.CACHE_CONTROL: "no-store", **({hdrs.LOCATION: location} if location else {})}
    return web.Response(
        status=status, body=msgspec.json.encode(value), content_type="application/json", headers=headers
    )
