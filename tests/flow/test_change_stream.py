"""The stream of changes: what is written reaches a reader that knows HTTP only, and nothing is left out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from pipeline.core.events import Batch, Event
from pipeline.core.snapshot import Snapshot
from pipeline.core.status import Status
from pipeline.db.feed import FeedStore
from pipeline.web import changes
from pipeline.web.changes import ChangeStreams
from pipeline.web.server import WebServer
from tests.conftest import eventually
from tests.flow.feed_kit import Feed
from tests.web.conftest import Source


class Reader:
    """A program in any language: it reads lines and keeps them."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.last_id = ""

    async def event(self) -> tuple[str, Any]:
        """The next event and its data."""
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

    async def until(self, kind: str) -> Any:
        while True:
            name, data = await self.event()
            if name == kind:
                return data
            assert name == "position", (name, data)


class Site:
    def __init__(self, feed: Feed, streams: ChangeStreams, server: WebServer) -> None:
        self.feed, self.streams, self.server = feed, streams, server

    @asynccontextmanager
    async def reader(self, last_id: str = "", query: str = "") -> AsyncIterator[Reader]:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        async with (
            aiohttp.ClientSession(self.server.url) as http,
            http.get(f"/api/v1/changes{query}", headers=headers) as response,
        ):
            assert response.status == 200
            yield Reader(response)


@pytest.fixture
async def site(feed: Feed) -> AsyncIterator[Site]:
    await feed.watch(
        "create table orders (id int primary key); create table item (id int primary key)", "'orders'"
    )
    await feed.told("select pipeline.watch('item')")
    streams = ChangeStreams(FeedStore(feed.database).replay)
    feed.follower._sinks = [*feed.follower._sinks, streams]
    await feed.told("insert into orders values (0)")
    status = Status(version="0", process="p", at=0, started_at=0, ready=True, draining=False)
    server = WebServer(Source(status), port=0, changes=streams)
    await server.start()
    yield Site(feed, streams, server)
    await server.stop()


def tags(data: Any) -> list[str]:
    return [change["tag"] for change in data["changes"]]


async def test_a_reader_begins_with_a_flush_and_then_hears_each_change_with_its_transaction(site: Site) -> None:
    async with site.reader() as reader:
        assert await reader.until("flush") == {"reason": "the stream begins here"}
        await site.feed.run("insert into orders values (7), (8)")
        data = await reader.until("changed")
    assert sorted(tags(data)) == ["orders:7", "orders:8"]
    xid = await site.feed.sql.fetchval("select xmin::text::bigint from orders where id = 7")
    assert {change["xid"] for change in data["changes"]} == {xid}


async def test_the_position_is_told_after_the_changes_that_it_sees(site: Site) -> None:
    async with site.reader() as reader:
        await reader.until("flush")
        await site.feed.run("insert into orders values (7)")
        changed = await reader.until("changed")
        while True:
            kind, data = await reader.event()
            if kind == "position" and Snapshot.parse(data["position"]).sees(changed["changes"][0]["xid"]):
                return


async def test_a_reader_that_comes_back_gets_what_it_missed_and_nothing_twice(site: Site) -> None:
    async with site.reader() as reader:
        await reader.until("flush")
        await site.feed.run("insert into orders values (1)")
        await reader.until("changed")
    for number in range(2, 5):
        await site.feed.told(f"insert into orders values ({number})")
    async with site.reader(reader.last_id) as again:
        heard = [tags(await again.until("changed")) for _number in range(3)]
        await site.feed.run("insert into orders values (5)")
        heard.append(tags(await again.until("changed")))
    assert heard == [["orders:2"], ["orders:3"], ["orders:4"], ["orders:5"]]


@pytest.mark.parametrize("last_id", ["another/1", "nonsense", "/", "x/y"])
async def test_a_reader_from_another_time_of_the_server_is_told_to_forget_everything(
    site: Site, last_id: str
) -> None:
    async with site.reader(last_id) as reader:
        await reader.until("flush")


async def test_a_reader_from_further_back_than_the_feed_remembers_is_told_to_forget_everything(site: Site) -> None:
    async with site.reader() as reader:
        await reader.until("flush")
        await site.feed.run("insert into orders values (1)")
        await reader.until("changed")
    await site.feed.told("insert into orders values (2)")
    await site.feed.told("insert into orders values (3)")
    await site.feed.run("delete from pipeline.ring_0 where seq < (select max(seq) from pipeline.ring)")
    await site.feed.run("delete from pipeline.ring_1 where seq < (select max(seq) from pipeline.ring)")
    async with site.reader(reader.last_id) as again:
        assert await again.until("flush") == {"reason": "more was missed than the feed remembers"}
        await site.feed.run("insert into orders values (4)")
        assert "orders:4" in tags(await again.until("changed"))


async def test_a_flush_of_the_feed_reaches_every_reader(site: Site) -> None:
    async with site.reader() as reader:
        await reader.until("flush")
        await eventually(lambda: site.streams._readers)
        site.streams.on_flush("the outbox was full")
        assert await reader.until("flush") == {"reason": "the outbox was full"}


async def test_numbers_that_begin_anew_in_another_epoch_are_told_all_the_same(site: Site) -> None:
    async with site.reader() as reader:
        await reader.until("flush")
        await eventually(lambda: site.streams._readers)
        site.streams.on_batch(Batch("one", 900, 899, None, (Event(5, "orders", "u", ("1",)),)))
        assert tags(await reader.until("changed")) == ["orders:1"]
        site.streams.on_flush("the server was restarted or replaced")
        await reader.until("flush")
        site.streams.on_batch(Batch("two", 2, 1, None, (Event(6, "orders", "u", ("2",)),)))
        assert tags(await reader.until("changed")) == ["orders:2"]


async def test_what_somebody_invalidates_is_told_like_a_change(site: Site) -> None:
    async with site.reader(query="?tables=orders") as reader:
        await reader.until("flush")
        await site.feed.run("select pipeline.invalidate(tags => '{orders:7,item:9}')")
        assert tags(await reader.until("changed")) == ["orders:7"]
        await site.feed.run("select pipeline.invalidate(prefix => 'ord')")
        (change,) = (await reader.until("changed"))["changes"]
    assert change["prefix"] == "ord"


async def test_a_reader_may_ask_for_some_tables_only(site: Site) -> None:
    async with site.reader(query="?tables=item,other") as reader:
        await reader.until("flush")
        await site.feed.told("insert into orders values (7)")
        await site.feed.told("insert into item values (9)")
        assert tags(await reader.until("changed")) == ["item:9"]


async def test_a_reader_that_cannot_keep_up_is_cut_off_and_not_kept_in_memory(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MOST_WAITING", 0)
    async with site.reader() as reader:
        await reader.until("flush")
        await site.feed.told("insert into orders values (7)")
        while (await reader.event())[0] != "end":
            continue
    await eventually(lambda: not site.streams._readers)


async def test_all_streams_end_when_the_server_stops(site: Site) -> None:
    async with site.reader() as reader:
        await reader.until("flush")
        await eventually(lambda: site.streams._readers)
        async with asyncio.timeout(2):
            await site.server.stop()
        while (await reader.event())[0] != "end":
            continue


async def test_a_reader_that_comes_back_is_told_no_position_before_the_changes_that_it_sees() -> None:
    change = Event(7, "orders", "u", ("1",))

    async def nothing_missed(_seq: int) -> Sequence[tuple[int, str]]:
        streams.on_batch(Batch("epoch", 2, 1, None, (change,)))  # while the feed's memory is read
        streams.on_position(Snapshot(8, 8))
        return ()

    streams = ChangeStreams(nothing_missed)
    streams.on_batch(Batch("epoch", 1, 0))
    streams.on_position(Snapshot(7, 7))
    status = Status(version="0", process="p", at=0, started_at=0, ready=True, draining=False)
    server = WebServer(Source(status), port=0, changes=streams)
    await server.start()
    async with (
        aiohttp.ClientSession(server.url) as http,
        http.get("/api/v1/changes", headers={"Last-Event-ID": "epoch/1"}) as response,
    ):
        reader = Reader(response)
        positions = []
        while (event := await reader.event())[0] == "position":
            positions.append(Snapshot.parse(event[1]["position"]))
    await server.stop()
    assert event[0] == "changed"
    assert not any(position.sees(change.xid) for position in positions)
