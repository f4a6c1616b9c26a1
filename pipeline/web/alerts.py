"""Alerts over HTTP: /api/v1/alerts and what is below.

Owns: the routes, what their parameters and bodies may be, and which status an answer has. Knows no SQL, and not
who may change what: that is decided before a request comes here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import msgspec
from aiohttp import hdrs, web
from pydantic import ValidationError

from pipeline.config_sections import AlertRule
from pipeline.core.alert_definition import Definition
from pipeline.db.alert_rules import AlertRules, Conflict
from pipeline.db.alert_shapes import RuleRow
from pipeline.db.alert_view import MOST, SEVERITIES, STATES, AlertViews, meant, near
from pipeline.db.connection import Database
from pipeline.errors import UsageError
from pipeline.web.alert_actions import AlertActions
from pipeline.web.alert_stream import AlertStream
from pipeline.web.jobs import read_body, wrong_field
from pipeline.web.performance import answer, known, row_limit, span
from pipeline.web.problems import problem

RULE = "/api/v1/alerts/rules/{name:.+}"
DEFAULT_OVER = "1d"


class AlertsApi:
    """database: made by `view_database`, opened elsewhere. stream: for whoever runs and closes it."""

    def __init__(self, database: Database) -> None:
        self.stream = AlertStream(database)
        self._views = AlertViews(database)
        self._rules = AlertRules(database)
        self._actions = AlertActions(database)

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_get("/api/v1/alerts", self.alerts)
        router.add_get("/api/v1/alerts/show", self.show)
        router.add_get("/api/v1/alerts/history", self.history)
        router.add_get("/api/v1/alerts/stream", self.stream.stream)
        router.add_get("/api/v1/alerts/silences", self.silences)
        router.add_get("/api/v1/alerts/channels", self.channels)
        router.add_get("/api/v1/alerts/notifications", self.notifications)
        router.add_get("/api/v1/alerts/rules", self.rules)
        router.add_get(RULE, self.rule)
        router.add_put(RULE, self.set_rule)
        router.add_delete(RULE, self.remove_rule)
        self._actions.add_to(router)

    async def alerts(self, request: web.Request) -> web.Response:
        """?state=firing,pending&severity=critical&rule=NAME&limit=200: what is alive, the gravest first."""
        given = known(request, "state", "severity", "rule", "limit")
        limit = row_limit({"limit": given.get("limit", str(MOST))}, MOST)
        found = await self._views.alerts(
            states=_choices(given, "state", STATES),
            severities=_choices(given, "severity", SEVERITIES),
            rule=given.get("rule"),
            limit=limit,
        )
        ageless = msgspec.json.encode([msgspec.structs.replace(one, seconds=0.0) for one in found])
        tag = hashlib.sha256(ageless).hexdigest()[:32]
        if any(one.value in (tag, "*") for one in request.if_none_match or ()):
            return web.Response(status=304, headers={hdrs.ETAG: f'W/"{tag}"', hdrs.CACHE_CONTROL: "no-store"})
        told = answer({"alerts": found})
        told.headers[hdrs.ETAG] = f'W/"{tag}"'
        return told

    async def show(self, request: web.Request) -> web.Response:
        """?rule=NAME&instance=TEXT: everything about a rule, a raised alert, or one instance."""
        given = known(request, "rule", "instance")
        if "rule" not in given:
            raise UsageError("no rule is given", hint="Such as ?rule=slow+query.")
        try:
            return answer(await self._views.show(given["rule"], given.get("instance")))
        except UsageError as error:
            return problem(request, error, status=404)

    async def history(self, request: web.Request) -> web.Response:
        """?over=1d&rule=NAME&instance=NAME&limit=100&before=ID: changes of state, the newest first;
        with the first page what people did and said.
        """
        given = known(request, "over", "rule", "instance", "limit", "before")
        limit = row_limit({"limit": given.get("limit", "100")}, MOST)
        before = given.get("before")
        if before is not None and not (before.isascii() and before.isdecimal() and len(before) < 19):
            raise UsageError("before is no number of a change", hint="Send `next` of the page before.")
        over = span("over", given.get("over", DEFAULT_OVER))
        found = await self._views.history(
            over,
            rule=given.get("rule"),
            instance=given.get("instance"),
            before=None if before is None else int(before),
            limit=limit,
        )
        told = {"changes": found, "next": found[-1].id if len(found) == limit else None}
        if before is None:
            notes = await self._views.notes(
                over, rule=given.get("rule"), instance=given.get("instance"), limit=limit
            )
            return answer({**told, "notes": notes})
        return answer(told)

    async def silences(self, request: web.Request) -> web.Response:
        """?past=true: those that hold, and if asked for those that are over."""
        past = known(request, "past").get("past", "false")
        if past not in ("true", "false"):
            raise UsageError("past is true or false", hint="Such as ?past=true.")
        return answer({"silences": await self._views.silences(past=past == "true")})

    async def channels(self, request: web.Request) -> web.Response:
        """Who is told, and how each fares."""
        known(request)
        return answer({"channels": await self._views.channels()})

    async def notifications(self, request: web.Request) -> web.Response:
        """?over=1d&channel=NAME&rule=NAME&limit=100: what was sent or is being sent, the newest first."""
        given = known(request, "over", "channel", "rule", "limit")
        found = await self._views.notifications(
            span("over", given.get("over", DEFAULT_OVER)),
            channel=given.get("channel"),
            rule=given.get("rule"),
            limit=row_limit({"limit": given.get("limit", "100")}, MOST),
        )
        return answer({"notifications": found})

    async def rules(self, request: web.Request) -> web.Response:
        """Every rule, and how it fares."""
        known(request)
        return answer({"rules": await self._views.rules()})

    async def rule(self, request: web.Request) -> web.Response:
        """One rule; its ETag is the version for If-Match."""
        one = await self._views.rule(request.match_info["name"])
        if one is None:
            return await self._missing(request)
        return _versioned(one)

    async def set_rule(self, request: web.Request) -> web.Response:
        """Make a rule, 201, or change the one of this name; what is not given is set to its default."""
        rule = _rule(request.match_info["name"], await read_body(request))
        try:
            with meant():
                there = await self._rules.replace(rule, version=_wanted(request))
        except Conflict as error:
            return problem(request, error, status=412)
        one = await self._views.rule(rule.name)
        return await self._missing(request) if one is None else _versioned(one, status=200 if there else 201)

    async def remove_rule(self, request: web.Request) -> web.Response:
        """Delete a rule; what it has firing is resolved."""
        name = request.match_info["name"]
        try:
            if await self._rules.drop(name, version=_wanted(request)):
                return answer({"removed": name})
        except Conflict as error:
            return problem(request, error, status=412)
        return await self._missing(request)

    async def _missing(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        hint = near(name, [one.name for one in await self._views.rules()])
        return problem(request, UsageError(f"there is no alert rule {name[:100]}", hint=hint), status=404)


def _choices(given: Mapping[str, str], name: str, there: Sequence[str]) -> list[str] | None:
    chosen = given[name].split(",") if name in given else None
    if chosen and (wrong := [one for one in chosen if one not in there]):
        raise UsageError(f"there is no {name} {wrong[0][:50]}", hint=f"One or more of {','.join(there)}.")
    return chosen


def _wanted(request: web.Request) -> str | None:
    """The version that If-Match asks for."""
    tags = request.if_match
    if not tags or any(one.value == "*" for one in tags):
        return None
    return tags[0].value


def _versioned(one: RuleRow, *, status: int = 200) -> web.Response:
    told = answer(one)
    told.set_status(status)
    told.headers[hdrs.ETAG] = f'"{one.version}"'
    return told


def _rule(name: str, body: bytes) -> Definition:
    """The rule of a body. Raises UsageError that names the field."""
    try:
        fields = json.loads(body or b"{}")
    except ValueError as error:
        raise UsageError(f"the body is not JSON: {error}", hint="Send an object.") from None
    if not isinstance(fields, dict) or fields.get("name", name) != name:
        raise UsageError("the body is no object with the fields of this rule", hint="The name is in the address.")
    try:
        return Definition(**AlertRule.model_validate({**fields, "name": name}).model_dump())
    except ValidationError as error:
        raise wrong_field(error, AlertRule) from None
