"""/api/v1/jobs and /api/v1/queues on a real database: reading, changing, and who may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import pytest

from pipeline.app.daemon import Daemon
from pipeline.config import Config
from pipeline.core.seal import Sealer
from pipeline.db.job_view import view_database
from pipeline.db.jobs import JobStore, job_database
from pipeline.registry import Registry
from pipeline.web.access import Tokens
from pipeline.web.jobs import JobsApi
from pipeline.web.server import WebServer
from tests.conftest import eventually
from tests.web.conftest import Serve, Source

Client = aiohttp.ClientSession
VIEWER, ADMIN = "viewer-" + "v" * 20, "admin-" + "a" * 20
KEY = b"k" * 32


async def mail(job: object, to: int, password: str = "") -> None:
    """A task with an argument that must fit."""


@pytest.fixture
async def api(dsn: str) -> AsyncIterator[JobsApi]:
    registry = Registry()
    registry.add_task(mail, name="mail", queue="post")
    registry.add_task(mail, name="sealed", encrypt=True)
    async with job_database(dsn) as jobs, view_database(dsn, purpose="view") as views:
        yield JobsApi(JobStore(jobs, registry=registry, sealer=Sealer([KEY], lambda n: b"n" * n)), views)


@pytest.fixture
async def server(serve: Serve, source: Source, api: JobsApi) -> WebServer:
    return await serve(source, tokens=Tokens(viewer=VIEWER, admin=ADMIN), jobs=api)


@pytest.fixture
async def http(server: WebServer) -> AsyncIterator[Client]:
    async with Client(server.url, headers={"Authorization": f"Bearer {ADMIN}"}) as session:
        yield session


async def get(http: Client, path: str, status: int = 200) -> Any:
    async with http.get(path) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json(content_type=None)


async def post(http: Client, path: str, body: Any = None, status: int = 200) -> Any:
    async with http.post(path, json=body) as answer:
        told = await answer.json(content_type=None)
        assert answer.status == status, told
        if status >= 400:
            assert answer.content_type == "application/problem+json"
            assert told["hint"] or status == 409
        return told


async def test_a_job_is_added_listed_shown_cancelled_and_retried(http: Client, sql: asyncpg.Connection) -> None:
    body = {"task": "mail", "args": {"to": 7, "password": "hunter2"}, "priority": 3, "key": "customer:7"}
    async with http.post("/api/v1/jobs", json=body) as answer:
        assert answer.status == 201
        job = (await answer.json())["job"]
        assert answer.headers["Location"] == f"/api/v1/jobs/{job}"
    assert await sql.fetchval("select queue from pipeline.job") == "post"
    found = await get(http, "/api/v1/jobs?where=state:ready%20key:customer:*")
    assert [(one["id"], one["args"]) for one in found["jobs"]] == [(job, {"to": 7, "password": "********"})]
    assert found["next"] is None
    shown = await get(http, f"/api/v1/jobs/{job}")
    assert (shown["state"], shown["priority"], shown["log"]) == ("ready", 3, [])
    assert await post(http, f"/api/v1/jobs/{job}/cancel", {"reason": "enough"}) == {"cancelled": job}
    assert (await get(http, f"/api/v1/jobs/{job}"))["error"] == "cancelled: enough"
    clash = await post(http, f"/api/v1/jobs/{job}/cancel", status=409)
    assert clash["detail"] == f"job {job} has cancelled, so it cannot be cancelled"
    assert await post(http, f"/api/v1/jobs/{job}/retry") == {"retried": job}
    assert "is ready" in (await post(http, f"/api/v1/jobs/{job}/retry", status=409))["detail"]


async def test_pages_go_on_where_the_last_one_ended(http: Client, sql: asyncpg.Connection) -> None:
    ids = [await sql.fetchval("select pipeline.enqueue('t')") for _ in range(5)]
    seen, after = [], ""
    while page := await get(http, f"/api/v1/jobs?limit=2{after}"):
        seen += [one["id"] for one in page["jobs"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert seen == ids[::-1]


async def test_arguments_are_checked_sealed_and_redacted(http: Client, sql: asyncpg.Connection) -> None:
    wrong = await post(http, "/api/v1/jobs", {"task": "mail", "args": {"tu": 7}}, 422)
    assert "mail does not take these arguments" in wrong["detail"]
    job = (await post(http, "/api/v1/jobs", {"task": "sealed", "args": {"to": 4711}}, 201))["job"]
    assert "4711" not in await sql.fetchval("select args::text from pipeline.job")
    assert (await get(http, f"/api/v1/jobs/{job}"))["args"] == "[sealed]"
    await sql.execute("insert into pipeline.task (name, redact) values ('mail', '{to}')")
    other = (await post(http, "/api/v1/jobs", {"task": "mail", "args": {"to": 4712}}, 201))["job"]
    assert (await get(http, f"/api/v1/jobs/{other}"))["args"] == {"to": "[redacted]"}


async def test_queues_are_told_and_changed(http: Client, sql: asyncpg.Connection) -> None:
    await sql.execute("select pipeline.enqueue('t', queue => 'mail')")
    await sql.execute("select pipeline.set_key_rule('customer', 1)")
    assert await post(http, "/api/v1/queues/mail/pause") == {"paused": "mail"}
    assert await post(http, "/api/v1/queues/mail/set", {"rate": "100/min", "slots": 4}) == {"set": "mail"}
    told = await get(http, "/api/v1/queues")
    [mail_queue] = told["queues"]
    assert (mail_queue["state"], mail_queue["ready"], mail_queue["rate"], mail_queue["slots"]) == (
        "paused",
        1,
        100,
        4,
    )
    assert told["keys"] == [{"name": "customer", "concurrency": 1, "rate": None, "rate_seconds": None}]
    await post(http, "/api/v1/queues/mail/set", {"rate": "none", "slots": 0})
    for verb, state in (("drain", "draining"), ("resume", "running")):
        await post(http, f"/api/v1/queues/mail/{verb}")
        row = await sql.fetchrow("select state, rate, slots from pipeline.queue")
        assert row is not None
        assert tuple(row) == (state, None, None)


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("jobs", {}, 400, "task: Field required"),
        ("jobs", {"task": "t", "que": "x"}, 400, "que: Extra inputs"),
        ("jobs", {"task": "t", "run_at": "2026-01-01T00:00:00"}, 400, "run_at: Input should have timezone"),
        ("jobs", {"task": "t", "priority": 10**12}, 400, "priority"),
        ("jobs", {"task": "t", "timeout": -1}, 400, "timeout"),
        ("jobs", {"task": "", "args": {}}, 422, "a job needs a task"),
        ("jobs", {"task": "t", "key": "x" * 300}, 400, "200 characters"),
        ("jobs", {"task": "t\0"}, 400, "invalid byte"),
        ("jobs", {"task": "t", "args": {"a": "\0"}}, 400, "Unicode"),
        ("jobs", [], 400, "the body"),
        ("jobs/999/cancel", None, 404, "there is no job 999"),
        ("jobs/x/retry", None, 404, "there is no job x"),
        (f"jobs/{2**70}/retry", None, 404, "there is no job"),
        ("jobs/1/retry", {"now": True}, 400, "now: Extra"),
        ("queues/mail/set", {}, 400, "nothing is given"),
        ("queues/mail/set", {"rate": "fast"}, 400, "'fast' is no rate"),
        ("queues/mail/set", {"concurrency": True}, 400, "concurrency"),
        (f"queues/{'x' * 300}/pause", None, 400, "1 to 200 characters"),
    ],
)
async def test_a_mistake_is_a_problem_that_names_it(
    http: Client, sql: asyncpg.Connection, path: str, body: Any, status: int, words: str
) -> None:
    assert words in (await post(http, f"/api/v1/{path}", body, status))["detail"]
    assert await sql.fetchval("select count(*) from pipeline.job") == 0


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("jobs?where=stat:failed", 400, "there is no field 'stat'"),
        ("jobs?limit=0", 400, "limit is a whole number"),
        ("jobs?limit=1001", 400, "1 to 1000"),
        ("jobs?after=x", 400, "after is a whole number"),
        ("jobs?state=failed", 400, "there is no parameter state"),
        ("jobs/999", 404, "there is no job 999"),
        ("jobs/-1", 404, "there is no job -1"),
    ],
)
async def test_a_question_that_cannot_be_meant_is_explained(
    http: Client, path: str, status: int, words: str
) -> None:
    told = await get(http, f"/api/v1/{path}", status)
    assert words in told["detail"]
    assert told["hint"]


async def test_a_body_that_is_no_json_is_refused(http: Client) -> None:
    async with http.post("/api/v1/jobs", data=b"task=t") as answer:
        assert answer.status == 400
        assert "application/json" in await answer.text()
    headers = {"Content-Type": "application/json"}
    async with http.post("/api/v1/jobs", data=b"{", headers=headers) as answer:
        assert answer.status == 400


CHANGES = (
    "jobs", "jobs/1/retry", "jobs/1/cancel", "queues/q/pause", "queues/q/resume", "queues/q/drain", "queues/q/set"
)  # fmt: skip


@pytest.mark.parametrize("path", CHANGES)
async def test_only_the_admin_token_changes_anything(
    server: WebServer, sql: asyncpg.Connection, path: str
) -> None:
    body = {"task": "t"} if path == "jobs" else None
    for header, status in (({}, 401), ({"Authorization": f"Bearer {VIEWER}"}, 403)):
        async with Client(server.url, headers=header) as http:
            told = await post(http, f"/api/v1/{path}", body, status)
            assert told["code"] == "permission-missing"
    assert await sql.fetchval("select count(*) from pipeline.job") == 0
    assert await sql.fetchval("select count(*) from pipeline.queue") == 0


async def test_without_an_admin_token_a_loopback_server_is_read_only(
    serve: Serve, source: Source, api: JobsApi
) -> None:
    server = await serve(source, jobs=api)
    async with Client(server.url) as http:
        assert (await get(http, "/api/v1/jobs"))["jobs"] == []
        told = await post(http, "/api/v1/queues/q/pause", None, 403)
        assert "http.admin_token" in told["hint"]
    guarded = await serve(source, tokens=Tokens(admin=ADMIN), jobs=api)
    async with Client(guarded.url) as http:
        assert (await get(http, "/api/v1/queues"))["queues"] == []
        await post(http, "/api/v1/queues/q/pause", None, 401)


async def test_the_viewer_may_read(server: WebServer) -> None:
    async with Client(server.url, headers={"Authorization": f"Bearer {VIEWER}"}) as http:
        assert await get(http, "/api/v1/jobs") == {"jobs": [], "next": None}
    async with Client(server.url) as http:
        await get(http, "/api/v1/jobs", 401)
        await get(http, "/api/v1/queues", 401)


async def test_what_is_not_there_stays_404_and_405(http: Client) -> None:
    for path, status in (("/api/v1/jobs/1/explode", 404), ("/api/v1/status", 405), ("/api/v1/queues", 405)):
        async with http.post(path) as answer:
            assert answer.status == status


async def test_a_daemon_serves_its_own_jobs(dsn: str, sql: asyncpg.Connection) -> None:
    registry = Registry()
    registry.add_task(mail, name="shop.mail", redact=["to"])
    config = Config.model_validate({"dsn": dsn, "http": {"port": 0, "admin_token": ADMIN}})
    daemon = Daemon(config, registry=registry)
    running = asyncio.create_task(daemon.run())
    try:
        await eventually(lambda: running.done() or daemon.live().ready, within=20, why="the daemon")
        async with Client(daemon.web.url, headers={"Authorization": f"Bearer {ADMIN}"}) as http:
            body = {"task": "shop.mail", "args": {"to": 7}, "queue": "nobody"}
            job = (await post(http, "/api/v1/jobs", body, 201))["job"]
            shown = await get(http, f"/api/v1/jobs/{job}")
            assert (shown["state"], shown["args"]) == ("ready", {"to": "[redacted]"})
            assert "nobody" in [one["queue"] for one in (await get(http, "/api/v1/queues"))["queues"]]
    finally:
        daemon.shutdown()
        await asyncio.wait_for(running, 20)
