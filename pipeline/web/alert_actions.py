"""What people do with alerts, over HTTP: POST /api/v1/alerts/ack, silence, resolve and their like.

Owns: these routes, what their bodies may hold, and which status an answer has. Knows no SQL, and not who may: that
is decided before a request comes here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from aiohttp import web
from pydantic import AwareDatetime, Field, StringConstraints

from pipeline.db.alert_people import AlertPeople
from pipeline.db.alert_view import AlertViews
from pipeline.db.connection import Database
from pipeline.errors import UsageError
from pipeline.web.jobs import Input, body_of
from pipeline.web.performance import answer
from pipeline.web.problems import problem

Text = Annotated[str, StringConstraints(max_length=4_000)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class ActionInput(Input):
    """By whom; the tokens name roles, not people."""

    by: Name = "http"


class AlertInput(ActionInput):
    """A rule or a raised alert; one instance of it, named as on the command line, or all."""

    rule: Text
    instance: Text | None = None


class NotedInput(AlertInput):
    """With what is known of it."""

    note: Text = ""


class SilenceInput(ActionInput):
    """What is not told, why, and either for how long or until when (ISO 8601 with a zone)."""

    matchers: dict[str, Text]
    reason: Text
    seconds: Annotated[float | None, Field(gt=0, le=3_660 * 86_400)] = None
    until: Annotated[AwareDatetime | None, Field(strict=False)] = None


class UnsilenceInput(ActionInput):
    """The number of a silence."""

    id: Annotated[int, Field(ge=1, lt=2**63)]


class TestInput(ActionInput):
    """The channel that is told something."""

    channel: Text


class AlertActions:
    """database: opened elsewhere."""

    def __init__(self, database: Database) -> None:
        self._views = AlertViews(database)
        self._people = AlertPeople(database)

    def add_to(self, router: web.UrlDispatcher) -> None:
        for verb in ("ack", "unack", "resolve", "note", "silence", "unsilence", "test"):
            router.add_post(f"/api/v1/alerts/{verb}", getattr(self, verb))

    async def ack(self, request: web.Request) -> web.Response:
        """Somebody is at it."""
        given = await body_of(request, NotedInput)
        return await self._done(
            request, given, "acknowledged",
            lambda instance: self._people.ack(given.rule, instance, note=given.note, by=given.by),
        )  # fmt: skip

    async def unack(self, request: web.Request) -> web.Response:
        """Take it back."""
        given = await body_of(request, AlertInput)
        return await self._done(
            request,
            given,
            "unacknowledged",
            lambda instance: self._people.unack(given.rule, instance, by=given.by),
        )

    async def resolve(self, request: web.Request) -> web.Response:
        """End by hand what pends or fires."""
        given = await body_of(request, NotedInput)
        return await self._done(
            request, given, "resolved",
            lambda instance: self._people.resolve(given.rule, instance, note=given.note, by=given.by),
        )  # fmt: skip

    async def note(self, request: web.Request) -> web.Response:
        """Write down what was found out."""
        given = await body_of(request, NotedInput)

        async def write(instance: str | None) -> str:
            await self._people.note(given.rule, given.note, instance, by=given.by)
            return given.rule

        return await self._done(request, given, "noted", write)

    async def silence(self, request: web.Request) -> web.Response:
        """Tell nothing of what matches; 201 and the number."""
        given = await body_of(request, SilenceInput)
        if not given.matchers:
            raise UsageError("matchers: there is none", hint='For everything write {"rule": "*"}.')
        if (given.seconds is None) == (given.until is None):
            raise UsageError("a silence needs an end", hint="Give either seconds or until.")
        id_ = await self._people.silence(
            given.matchers,
            given.reason,
            seconds=given.seconds,
            until=None if given.until is None else given.until.timestamp(),
            by=given.by,
        )
        told = answer({"silence": id_, "matches": await self._views.matched(given.matchers)})
        told.set_status(201)
        return told

    async def unsilence(self, request: web.Request) -> web.Response:
        """End a silence now."""
        given = await body_of(request, UnsilenceInput)
        if await self._people.unsilence(given.id, by=given.by):
            return answer({"ended": given.id})
        missing = UsageError(f"there is no silence {given.id} that holds", hint="See /api/v1/alerts/silences.")
        return problem(request, missing, status=404)

    async def test(self, request: web.Request) -> web.Response:
        """Send a channel a test; 202 and its id, by which /notifications tells what became of it."""
        given = await body_of(request, TestInput)
        channels = [one.channel for one in await self._views.channels()]
        if given.channel not in channels:
            hint = f"There is {', '.join(channels)}." if channels else "No daemon has run with channels yet."
            missing = UsageError(f"there is no channel {given.channel[:100]}", hint=hint)
            return problem(request, missing, status=404)
        told = answer({"notification": await self._people.test(given.channel, by=given.by)})
        told.set_status(202)
        return told

    async def _done(
        self, request: web.Request, given: AlertInput, what: str, work: Callable[[str | None], Awaitable[Any]]
    ) -> web.Response:
        """Do it to a rule or the instance that is meant; 404 where there is none, 409 where nothing is alive."""
        try:
            await self._views.known(given.rule)
            text = given.instance
            instance = None if text is None else await self._views.instance(given.rule, text)
        except UsageError as error:
            return problem(request, error, status=404)
        try:
            return answer({what: await work(instance)})
        except UsageError as error:
            return problem(request, error, status=409)
