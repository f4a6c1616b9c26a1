"""Responses of an application say what they depend on and for how long they are good."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

import pipeline
from handlers.cache_scope import Seen
from pipeline.app import Client
from pipeline.web.http_cache import Lifetime
from tests.conftest import eventually


class Shop:
    """An application with one page, whose handler a test may replace."""

    def __init__(self, http: aiohttp.ClientSession, sql: asyncpg.Connection, client: Client) -> None:
        self.http, self.sql, self.client = http, sql, client

    async def get(self, path: str = "/orders/1", **headers: str) -> aiohttp.ClientResponse:
        async with self.http.get(path, headers=headers) as response:
            await response.read()
            return response


async def order(request: web.Request) -> web.Response:
    number = int(request.match_info["id"])
    rows = await pipeline.cache.query(
        "select status from orders where id = $1", number, tags=f"orders:{number}", ttl="100s", jitter=0
    )
    return web.json_response(rows)


async def many(request: web.Request) -> web.Response:
    for number in range(int(request.match_info["count"])):
        await pipeline.cache.query(f"select {number}", tags=f"t{number}")
    return web.Response(text="many")


async def plain(_request: web.Request) -> web.Response:
    return web.Response(text="nothing of the cache")


async def own(_request: web.Request) -> web.Response:
    return web.Response(text="own", headers={"Cache-Control": "no-store", "ETag": '"mine"', "Cache-Groups": '"x"'})


async def login(request: web.Request) -> web.Response:
    response = await order(request)
    response.set_cookie("session", "1")
    return response


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"piece")
    return response


@pytest.fixture
async def shop(dsn: str, sql: asyncpg.Connection) -> AsyncIterator[Shop]:
    await sql.execute("create table orders (id int primary key, status text)")
    await sql.execute("insert into orders select n, 'new' from generate_series(1, 3) n")
    await sql.execute("select pipeline.watch('orders')")
    middleware = pipeline.http_cache(
        max_age="5s", shared_max_age="1h", stale_while_revalidate="30s", stale_if_error="1m"
    )
    app = web.Application(middlewares=[middleware])
    app.router.add_get("/orders/{id}", order)
    app.router.add_post("/orders/{id}", order)
    app.router.add_get("/many/{count}", many)
    app.router.add_get("/login/{id}", login)
    for handler in (plain, own, stream):
        app.router.add_get(f"/{handler.__name__}", handler)
    async with pipeline.connect(dsn) as client, TestServer(app) as server:
        await eventually(lambda: client.cache.healthy().ok)
        async with aiohttp.ClientSession(server.make_url("/")) as http:
            yield Shop(http, sql, client)


async def test_a_response_names_the_groups_it_depends_on_and_how_long_it_is_good(shop: Shop) -> None:
    response = await shop.get()
    assert response.headers["Cache-Groups"] == '"*", "orders:*", "orders:1"'
    said = dict(part.partition("=")[::2] for part in response.headers["Cache-Control"].split(", "))
    assert said["max-age"] == "5"
    assert 90 <= int(said["s-maxage"]) <= 100  # no longer than the value in it
    assert (said["stale-while-revalidate"], said["stale-if-error"]) == ("30", "60")
    assert "public" in said


async def test_a_reader_that_has_it_already_gets_304_until_it_changes(shop: Shop) -> None:
    tag = (await shop.get()).headers["ETag"]
    again = await shop.get(**{"If-None-Match": f'"other", {tag}'})
    assert again.status == 304
    assert again.headers["ETag"] == tag
    assert again.headers["Cache-Groups"] == '"*", "orders:*", "orders:1"'
    dropped = shop.client.cache.status().invalidations_total
    await shop.sql.execute("update orders set status = 'sent' where id = 1")
    await eventually(lambda: shop.client.cache.status().invalidations_total > dropped)
    changed = await shop.get(**{"If-None-Match": tag})
    assert changed.status == 200
    assert changed.headers["ETag"] != tag


async def test_a_value_from_the_cache_and_one_just_loaded_give_the_same_headers(shop: Shop) -> None:
    first, second = await shop.get(), await shop.get()
    assert shop.client.cache.status().hits_total == 1
    assert first.headers["ETag"] == second.headers["ETag"]
    assert first.headers["Cache-Groups"] == second.headers["Cache-Groups"]


async def test_nothing_is_promised_of_a_response_that_read_nothing_through_the_cache(shop: Shop) -> None:
    response = await shop.get("/plain")
    assert response.headers["Cache-Control"] == "public, max-age=0, s-maxage=0, no-cache"
    assert "Cache-Groups" not in response.headers
    assert "ETag" in response.headers


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/orders/1", {"Authorization": "Bearer x"}),
        ("/orders/1", {"Cookie": "session=1"}),
        ("/login/1", {}),
        ("/many/40", {}),
    ],
)
async def test_what_is_of_one_person_or_of_too_many_tables_is_for_no_shared_cache(
    shop: Shop, path: str, headers: dict[str, Any]
) -> None:
    said = (await shop.get(path, **headers)).headers["Cache-Control"]
    assert said.startswith("private, max-age=5")
    assert "s-maxage" not in said


async def test_what_the_handler_set_itself_stays(shop: Shop) -> None:
    response = await shop.get("/own")
    assert (response.headers["Cache-Control"], response.headers["Cache-Groups"]) == ("no-store", '"x"')
    assert (await shop.get("/own", **{"If-None-Match": '"mine"'})).status == 304


async def test_streams_errors_and_writes_are_left_alone(shop: Shop) -> None:
    assert "ETag" not in (await shop.get("/stream")).headers
    assert "Cache-Control" not in (await shop.get("/nowhere")).headers
    async with shop.http.post("/orders/1") as response:
        assert "ETag" not in response.headers


async def test_a_value_that_changed_while_it_was_loaded_makes_no_promise(shop: Shop) -> None:
    cache = shop.client.cache

    async def load() -> str:
        await cache.invalidate(tags="late")  # whoever keeps responses has been told by now
        return "old"

    async with cache.reads() as seen:
        await cache.get_or_load("late", load, tags="late", ttl="1h")
    assert Lifetime(max_age=10).header(seen, private=True) == "private, max-age=0, no-cache"


async def test_a_stale_value_makes_no_promise() -> None:
    seen = Seen()
    seen.note(frozenset({"orders:1"}), math.inf, stale=True)
    said = Lifetime(max_age=10, shared_max_age=20, stale_if_error=5).header(seen, private=False)
    assert said == "public, max-age=0, s-maxage=0, no-cache"
