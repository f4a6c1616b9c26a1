"""/api/v1/alerts on a real database: what is alive, what happened, rules, the stream, and who may."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import asyncpg
import pytest

from pipeline.core.alert_flush import Pace
from pipeline.db.alert_changes import AlertChanges
from pipeline.db.alert_delivery import ChannelRow, DeliveryStore
from pipeline.db.alerts import AlertStore
from pipeline.db.connection import Database
from pipeline.db.job_view import view_database
from pipeline.web import alert_stream
from pipeline.web.access import Tokens
from pipeline.web.alerts import AlertsApi
from pipeline.web.server import WebServer
from tests.conftest import eventually
from tests.web.conftest import Serve, Source

Client = aiohttp.ClientSession
VIEWER, ADMIN = "viewer-" + "v" * 20, "admin-" + "a" * 20
CART = {"metric": "latency.p95", "series": "cart", "threshold": 50, "severity": "critical", "need": 2}


@pytest.fixture
async def api(dsn: str) -> AsyncIterator[AlertsApi]:
    async with view_database(dsn, purpose="view") as views:
        yield AlertsApi(views)


@pytest.fixture
async def server(serve: Serve, source: Source, api: AlertsApi) -> WebServer:
    return await serve(source, tokens=Tokens(viewer=VIEWER, admin=ADMIN), alerts=api)


@pytest.fixture
async def http(server: WebServer) -> AsyncIterator[Client]:
    async with Client(server.url, headers={"Authorization": f"Bearer {ADMIN}"}) as session:
        yield session


async def ask(http: Client, method: str, path: str, body: Any = None, status: int = 200, **headers: str) -> Any:
    async with http.request(method, path, json=body, headers=headers) as answer:
        told = await answer.json(content_type=None)
        assert answer.status == status, told
        assert answer.headers["Cache-Control"] == "no-store"
        if status >= 400:
            assert answer.content_type == "application/problem+json"
        return told


async def get(http: Client, path: str, status: int = 200) -> Any:
    return await ask(http, "GET", path, status=status)


async def say(sql: asyncpg.Connection, db: Database, *statements: str) -> None:
    for one in statements:
        await sql.execute(f"select pipeline.{one}")
    await AlertStore(db).take_inbox()


async def test_what_is_alive_and_what_happened(http: Client, sql: asyncpg.Connection, db: Database) -> None:
    async with http.get("/api/v1/alerts") as answer:
        assert await answer.json() == {"alerts": []}
        empty = answer.headers["ETag"]
    await say(
        sql, db, "raise_alert('stock', 'low', 'critical', '{\"sku\": \"42\"}')", "raise_alert('disk', 'full')",
        "resolve_alert('disk')",
    )  # fmt: skip
    async with http.get("/api/v1/alerts", headers={"If-None-Match": empty}) as answer:
        assert answer.status == 200
        told = (await answer.json())["alerts"]
        tag = answer.headers["ETag"]
    assert [(one["rule"], one["state"], one["severity"], one["labels"]) for one in told] == [
        ("stock", "firing", "critical", {"sku": "42"}), ("disk", "resolved", "warning", {}),
    ]  # fmt: skip
    await asyncio.sleep(0.01)  # another age
    async with http.get("/api/v1/alerts", headers={"If-None-Match": tag}) as answer:
        assert answer.status == 304
    assert [one["rule"] for one in (await get(http, "/api/v1/alerts?state=resolved,pending"))["alerts"]] == [
        "disk"
    ]
    assert (await get(http, "/api/v1/alerts?severity=info"))["alerts"] == []

    first = await get(http, "/api/v1/alerts/history?limit=2")
    rest = await get(http, f"/api/v1/alerts/history?limit=2&before={first['next']}")
    changes = [(one["rule"], one["after"]) for one in first["changes"] + rest["changes"]]
    assert sorted(changes) == [("disk", "firing"), ("disk", "resolved"), ("stock", "firing")]
    assert rest["next"] is None
    shown = await get(http, "/api/v1/alerts/show?rule=stock&instance=sku=42")
    assert (shown["rule"], shown["instance"], len(shown["history"])) == (None, '{sku="42"}', 1)

    for path, status, words in (
        ("/api/v1/alerts?state=fring", 400, "there is no state fring"),
        ("/api/v1/alerts?limit=0", 400, "limit is a whole number"),
        ("/api/v1/alerts?nonsense=1", 400, "there is no parameter nonsense"),
        ("/api/v1/alerts/history?over=never", 400, "over is no span"),
        ("/api/v1/alerts/history?before=x", 400, "before is no number"),
        ("/api/v1/alerts/show", 400, "no rule is given"),
        ("/api/v1/alerts/show?rule=stok", 404, "there is no alert rule stok"),
        ("/api/v1/alerts/show?rule=stock&instance=7", 404, "stock has no instance 7"),
    ):
        assert words in (await get(http, path, status))["detail"], path


async def test_a_rule_is_made_read_changed_and_deleted_and_a_change_in_between_is_noticed(
    http: Client, sql: asyncpg.Connection
) -> None:
    path = "/api/v1/alerts/rules/slow%20cart/eu"
    made = await ask(http, "PUT", path, CART, 201)
    assert (made["name"], made["threshold"], made["health"], made["origin"]) == ("slow cart/eu", 50, "new", "user")
    async with http.get(path) as answer:
        tag = answer.headers["ETag"]
    assert "slow cart/eu" in [one["name"] for one in (await get(http, "/api/v1/alerts/rules"))["rules"]]
    changed = await ask(http, "PUT", path, {**CART, "need": 4}, **{"If-Match": tag})
    assert changed["need"] == 4
    for method in ("PUT", "DELETE"):
        clash = await ask(http, method, path, CART, 412, **{"If-Match": tag})
        assert "somebody has changed" in clash["detail"]
    assert await sql.fetchval("select need from pipeline.alert_rule where name = 'slow cart/eu'") == 4
    assert await ask(http, "DELETE", path) == {"removed": "slow cart/eu"}
    assert "there is no alert rule" in (await ask(http, "DELETE", path, None, 404))["detail"]
    assert "slow query" in (await get(http, "/api/v1/alerts/rules/slow%20qery", 404))["hint"]

    for body, words in (
        ({**CART, "threshold": None}, "the threshold must be a number"),
        ({**CART, "treshold": 1}, "treshold"),
        ({**CART, "metric": "latency.p9"}, "there is no metric latency.p9"),
        ({**CART, "over": "banana"}, "banana"),
        ({**CART, "message": "\0"}, ""),
        ({"query": "delete from pipeline.alert_rule"}, "its query cannot be run"),
        ({**CART, "name": "another"}, "no object with the fields of this rule"),
        ([1], "no object"),
    ):
        told = await ask(http, "PUT", path, body, 400)
        assert words in told["detail"], told
        assert told["hint"]
    async with http.put(path, data=b"{", headers={"Content-Type": "application/json"}) as answer:
        assert (answer.status, "not JSON" in (await answer.json(content_type=None))["detail"]) == (400, True)


async def test_a_viewer_reads_and_changes_nothing(server: WebServer) -> None:
    async with Client(server.url, headers={"Authorization": f"Bearer {VIEWER}"}) as viewer:
        await get(viewer, "/api/v1/alerts")
        await ask(viewer, "PUT", "/api/v1/alerts/rules/x", CART, 403)
        for verb in ("ack", "unack", "resolve", "note", "silence", "unsilence", "test"):
            await ask(viewer, "POST", f"/api/v1/alerts/{verb}", {"rule": "x"}, 403)
        await ask(viewer, "DELETE", "/api/v1/alerts/rules/slow%20query", None, 403)
    async with Client(server.url) as nobody:
        for path in ("", "/history", "/rules", "/stream", "/show?rule=x", "/channels", "/silences"):
            await get(nobody, f"/api/v1/alerts{path}", 401)


async def test_people_acknowledge_silence_note_end_and_try_channels(
    http: Client, sql: asyncpg.Connection, db: Database
) -> None:
    async def post(path: str, body: Any, status: int = 200) -> Any:
        told = await ask(http, "POST", f"/api/v1/alerts/{path}", body, status)
        assert status < 400 or told["hint"]
        return told

    await say(
        sql, db, "raise_alert('stock', 'low', labels => '{\"sku\": \"42\"}')",
        "raise_alert('stock', 'low', labels => '{\"sku\": \"43\"}')",
    )  # fmt: skip
    one = {"rule": "stock", "instance": "sku=42", "by": "ann"}
    assert await post("ack", {**one, "note": "looking"}) == {"acknowledged": 1}
    told = (await get(http, "/api/v1/alerts"))["alerts"]
    assert [row["acknowledged"] and row["acknowledged"]["by"] for row in told] == ["ann", None]
    assert await post("unack", one) == {"unacknowledged": 1}
    silenced = await post("silence", {"matchers": {"label.sku": "43"}, "reason": "known", "seconds": 60}, 201)
    assert silenced["matches"] == 1
    assert [row["held"] for row in (await get(http, "/api/v1/alerts"))["alerts"]] == ["", "silence 1"]
    [row] = (await get(http, "/api/v1/alerts/silences"))["silences"]
    assert (row["id"], row["reason"], row["made_by"]) == (1, "known", "http")
    assert await post("unsilence", {"id": 1}) == {"ended": 1}
    assert (await get(http, "/api/v1/alerts/silences"))["silences"] == []
    assert len((await get(http, "/api/v1/alerts/silences?past=true"))["silences"]) == 1
    later = {"matchers": {"rule": "x"}, "reason": "known", "until": "2999-01-01T00:00:00Z"}
    assert (await post("silence", later, 201))["matches"] == 0
    assert await post("resolve", {**one, "note": "ordered"}) == {"resolved": 1}
    assert await post("note", {"rule": "stock", "note": "late"}) == {"noted": "stock"}
    history = await get(http, "/api/v1/alerts/history?rule=stock")
    assert [row["action"] for row in history["notes"]] == ["note", "resolve", "unack", "ack"]

    await DeliveryStore(db).register([ChannelRow("hook", "webhook", "")], Pace())
    sent = (await post("test", {"channel": "hook"}, 202))["notification"]
    [row] = (await get(http, "/api/v1/alerts/notifications?channel=hook"))["notifications"]
    assert (row["id"], row["state"], row["reason"]) == (sent, "open", "test")
    [row] = (await get(http, "/api/v1/alerts/channels"))["channels"]
    assert (row["channel"], row["waiting"]) == ("hook", 1)

    for path, body, status, words in (
        ("ack", {"rule": "stok"}, 404, "there is no alert rule stok"),
        ("ack", {"rule": "stock", "instance": "44"}, 404, "stock has no instance 44"),
        ("ack", {}, 400, "rule: Field required"),
        ("ack", {**one, "x": 1}, 400, "x: "),
        ("resolve", one, 409, "neither pends nor fires"),
        ("silence", {"matchers": {}, "reason": "x", "seconds": 1}, 400, "there is none"),
        ("silence", {"matchers": {"x": "y"}, "reason": "x", "seconds": 1}, 400, "there is no attribute x"),
        ("silence", {"matchers": {"rule": "y"}, "reason": "x"}, 400, "needs an end"),
        ("silence", {"matchers": {"rule": "y"}, "reason": " ", "seconds": 1}, 400, "needs a reason"),
        ("silence", {**later, "until": "2020-01-01T00:00:00Z"}, 400, "does not lie ahead"),
        ("unsilence", {"id": 1}, 404, "there is no silence 1"),
        ("test", {"channel": "hok"}, 404, "there is no channel hok"),
    ):
        assert words in (await post(path, body, status))["detail"], (path, body)


class Reader:
    """Reads a stream of events."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.last_id = ""

    async def event(self) -> tuple[str, Any]:
        kind = ""
        async with asyncio.timeout(10):
            while line := (await self._response.content.readline()).decode():
                name, _colon, value = line.rstrip("\n").partition(": ")
                if name == "id":
                    self.last_id = value
                elif name == "event":
                    kind = value
                elif name == "data":
                    return kind, json.loads(value)
        return "end", None

    async def changes(self, count: int) -> list[tuple[str, str]]:
        told = [await self.event() for _ in range(count)]
        assert {kind for kind, _ in told} == {"change"}, told
        return [(one["rule"], one["after"]) for _, one in told]


@asynccontextmanager
async def stream(http: Client, last_id: str = "", query: str = "") -> AsyncIterator[Reader]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with http.get(f"/api/v1/alerts/stream{query}", headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        yield Reader(response)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_stream, "POLL_SECONDS", 0.05)


async def test_a_stream_tells_what_is_alive_and_every_change_and_goes_on_where_it_was_cut_off(
    http: Client, sql: asyncpg.Connection, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await say(sql, db, "raise_alert('a', 'x')")
    async with stream(http) as reader, stream(http, query="?rule=a") as only_a:
        kind, told = await reader.event()
        assert (kind, [one["rule"] for one in told["alerts"]]) == ("alerts", ["a"])
        await only_a.event()
        await say(sql, db, "raise_alert('b', 'x')", "resolve_alert('a')")
        assert sorted(await reader.changes(2)) == [("a", "resolved"), ("b", "firing")]
        assert await only_a.changes(1) == [("a", "resolved")]
        seen = reader.last_id
    await say(sql, db, "raise_alert('c', 'x')")
    await say(sql, db, "raise_alert('d', 'x')")
    async with stream(http, seen) as reader:
        assert await reader.changes(2) == [("c", "firing"), ("d", "firing")]
        await say(sql, db, "resolve_alert('c')")
        assert await reader.changes(1) == [("c", "resolved")]
    monkeypatch.setattr(alert_stream, "MOST_MISSED", 1)
    for last in (seen, "999999", "nonsense"):
        async with stream(http, last) as reader:
            kind, told = await reader.event()
            assert kind == "alerts"
            assert {one["rule"] for one in told["alerts"]} == {"a", "b", "c", "d"}


async def test_a_change_that_is_committed_late_is_told_before_those_with_higher_numbers(
    http: Client, sql: asyncpg.Connection, db: Database, dsn: str
) -> None:
    write = (
        "insert into pipeline.alert_history (at, kind, rule, instance, episode, before, after, message, reason)"
        " values (now(), 'raised', $1, '', 1, 'inactive', 'firing', '', '')"
    )
    slow = await asyncpg.connect(dsn)
    try:
        async with stream(http) as reader:
            await reader.event()
            begun = slow.transaction()
            await begun.start()
            await slow.execute(write, "slow")
            await sql.execute(write, "quick")
            gone = sql.transaction()
            await gone.start()
            await sql.execute(write, "rolled back")
            await gone.rollback()
            await sql.execute(write, "quick too")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await reader.event()
            await begun.commit()
            assert [rule for rule, _ in await reader.changes(3)] == ["slow", "quick", "quick too"]
    finally:
        await slow.close()


async def test_a_change_that_is_committed_while_a_gap_is_looked_at_is_not_passed_over(
    sql: asyncpg.Connection, db: Database, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = (
        "insert into pipeline.alert_history (at, kind, rule, instance, episode, before, after, message, reason)"
        " values (now(), 'raised', $1, '', 1, 'inactive', 'firing', '', '')"
    )
    slow = await asyncpg.connect(dsn)
    try:
        begun = slow.transaction()
        await begun.start()
        await slow.execute(write, "slow")
        await sql.execute(write, "quick")
        is_open = AlertChanges._is_open

        async def commits_first(changes: AlertChanges, newest: int) -> bool:
            await begun.commit()
            return await is_open(changes, newest)

        monkeypatch.setattr(AlertChanges, "_is_open", commits_first)
        assert [one.rule for one in await AlertChanges(db, 0).read(10)] == ["slow", "quick"]
    finally:
        await slow.close()


async def test_streams_are_limited_and_end_with_the_server(
    server: WebServer, http: Client, api: AlertsApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_stream, "MOST_STREAMS", 1)
    await get(http, "/api/v1/alerts/stream?rule=nonsense", 400)
    async with stream(http) as reader:
        await reader.event()
        await get(http, "/api/v1/alerts/stream", 503)
        await server.stop()
        assert await reader.event() == ("end", None)
    await eventually(lambda: not api.stream.open)
