"""Telling the cache in front: nothing that changed is left out, whatever state the receiver is in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from handlers.purge import PurgeConsumer, Purger, Receiver
from pipeline.app.daemon import Daemon, receiver_of
from pipeline.config import Config
from pipeline.core.events import Event
from pipeline.core.outgoing import Answer
from pipeline.errors import ConfigError
from tests.conftest import eventually


class Edge:
    """A cache in front, on a real socket; it may refuse."""

    def __init__(self) -> None:
        self.status = 200
        self.asked: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    async def purge(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.status == 200:
            self.asked.append((dict(request.headers), body))
        return web.Response(status=self.status)

    @property
    def tags(self) -> set[str]:
        return {tag for _headers, body in self.asked for tag in json.loads(body)["tags"]}


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    found = Edge()
    app = web.Application()
    app.router.add_post("/purge", found.purge)
    async with TestServer(app) as server:
        found.url = str(server.make_url("/purge"))
        yield found


async def running(dsn: str, **purge: Any) -> tuple[Daemon, asyncio.Task[None]]:
    daemon = Daemon(Config(dsn=dsn, http={"port": 0}, jobs={"queues": "mail:1"}, purge=purge))
    task = asyncio.create_task(daemon.run())
    await eventually(lambda: daemon.consumers.leading and daemon.follower.up, within=20)
    return daemon, task


async def test_what_changes_is_asked_for_with_the_credentials_and_again_until_it_is_accepted(
    dsn: str, sql: asyncpg.Connection, edge: Edge
) -> None:
    await sql.execute("create table orders (id int primary key, status text)")
    await sql.execute("select pipeline.watch('orders')")
    edge.status = 503
    daemon, task = await running(dsn, url=edge.url, headers=["Authorization: Bearer s3cret"])
    await sql.execute("insert into orders values (7, 'new')")
    refused = "select count(*) from pipeline.job where task = 'pgreflex.purge' and attempt > 0"
    await eventually(lambda: sql.fetchval(refused))
    edge.status = 200
    await eventually(lambda: "orders:7" in edge.tags, within=20)
    assert {"orders", "orders:7"} <= edge.tags
    assert {headers["Authorization"] for headers, _body in edge.asked} == {"Bearer s3cret"}
    await sql.execute("select pipeline.invalidate(prefix => '')")
    await eventually(lambda: "*" in edge.tags)
    daemon.shutdown()
    await task


async def test_tags_may_go_into_a_header_apart_by_spaces(edge: Edge) -> None:
    body, headers = Receiver(edge.url, {"Fastly-Key": "k"}, "Surrogate-Key").request(["orders", "orders:7"])
    assert (body, headers) == (b"", {"Fastly-Key": "k", "Surrogate-Key": "orders orders:7"})


async def test_one_job_asks_for_a_hundred_groups_at_a_time() -> None:
    sent: list[list[str]] = []

    async def post(_url: str, body: bytes, _headers: Any) -> Answer:
        sent.append(json.loads(body)["tags"])
        return Answer(204)

    groups = [f"orders:{number}" for number in range(250)]
    job: Any = None
    assert await Purger(Receiver("http://edge", {}), post).purge(job, groups=groups) == 3
    assert [len(some) for some in sent] == [100, 100, 50]
    assert [group for some in sent for group in some] == groups


async def test_events_that_change_nothing_make_no_job_and_a_gap_ends_everything() -> None:
    jobs: list[Any] = []

    async def enqueue(_task: str, args: Any, run_at: datetime | None = None) -> None:
        jobs.append(args)

    consumer = PurgeConsumer(enqueue, max_staleness=1)
    await consumer.handle([Event(1, "prices", "e", payload="7")])
    assert jobs == []
    await consumer.missed("the server crashed")
    assert jobs == 2 * [{"groups": ["*"]}]


async def test_it_is_asked_again_when_no_application_can_answer_with_what_was_before() -> None:
    times: list[datetime] = []

    async def enqueue(_task: str, args: Any, run_at: datetime | None = None) -> None:
        assert args == {"groups": ["orders", "orders:1", "orders:1:*"]}
        times.append(run_at or datetime.now(UTC))

    await PurgeConsumer(enqueue, max_staleness=5).handle([Event(1, "orders", "u", ("1",))])
    at_once, again = times
    assert again - at_once >= timedelta(seconds=5)


def test_a_header_that_is_none_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigError, match=r"^one of purge.headers is no header$"):
        receiver_of(Config(purge={"url": "http://edge", "headers": ["s3cret"]}))
    assert "s3cret" not in repr(Receiver("http://user:s3cret@edge", {"Key": "s3cret"}))
