"""A follower that begins tells those who ask what the feed remembers, as far as it is without a gap."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from pipeline.core.events import Batch
from pipeline.feed.follower import Follower
from pipeline.runtime import Supervisor
from tests.conftest import eventually
from tests.flow.feed_kit import Feed, Sink

ITEM = "create table item (id int primary key)"


class Recalling(Sink):
    """Also keeps what it is told of the past."""

    recalled: Sequence[Batch] = ()
    epoch = ""

    def on_recall(self, epoch: str, batches: Sequence[Batch]) -> None:
        self.epoch, self.recalled = epoch, batches


@asynccontextmanager
async def beginning(dsn: str) -> AsyncIterator[Recalling]:
    sink, plain = Recalling(), Sink()
    follower = Follower(dsn, [sink, plain])
    supervisor = Supervisor([follower], drain_timeout=5)
    supervisor.start()
    await eventually(lambda: sink.recalled and sink.positions)
    assert sink.recalled[-1].seq <= follower.seq
    assert not any(batch in sink.batches or batch in plain.batches for batch in sink.recalled)
    yield sink
    await supervisor.stop()


async def written(feed: Feed) -> list[int]:
    """Three batches of one event each; their numbers."""
    await feed.watch(ITEM, "'item', keys => '{id}'")
    for key in (1, 2, 3):
        await feed.told(f"insert into item values ({key})")
    return [batch.seq for batch in feed.sink.batches if any(event.name == "item" for event in batch.events)]


async def test_what_is_remembered_is_told_once_and_to_those_who_ask(feed: Feed, dsn: str) -> None:
    await written(feed)
    async with beginning(dsn) as sink:
        keys = [event.keys for batch in sink.recalled for event in batch.events if event.name == "item"]
        assert keys[-3:] == [("1",), ("2",), ("3",)]
        for before, after in zip(sink.recalled, sink.recalled[1:], strict=False):
            assert (after.previous, after.epoch) == (before.seq, sink.epoch)
        assert len(sink.flushes) == 1


async def test_nothing_from_before_a_gap_is_told(feed: Feed, dsn: str, sql: asyncpg.Connection) -> None:
    seqs = await written(feed)
    for ring in ("ring_0", "ring_1"):
        await sql.execute(f"delete from pipeline.{ring} where seq = $1", seqs[1])
    async with beginning(dsn) as sink:
        assert sink.recalled[0].seq == seqs[1] + 1


async def test_nothing_of_another_epoch_is_told(feed: Feed, dsn: str, sql: asyncpg.Connection) -> None:
    seqs = await written(feed)
    for ring in ("ring_0", "ring_1"):
        await sql.execute(
            f"update pipeline.{ring} set payload = replace(payload, pipeline.epoch(), 'another') where seq <= $1",
            seqs[1],
        )
    async with beginning(dsn) as sink:
        assert sink.recalled[0].seq == seqs[1] + 1


async def test_where_nothing_is_remembered_the_position_is_told_from_which_on_everything_will_be(
    feed: Feed, dsn: str, sql: asyncpg.Connection
) -> None:
    await written(feed)
    seq, position = feed.pump.seq, str(feed.pump.position)
    await sql.execute("truncate pipeline.ring_0, pipeline.ring_1")
    await sql.execute("update pipeline.leader set seq = $1, position = $2", seq, position)
    async with beginning(dsn) as sink:
        [batch] = sink.recalled
        assert (batch.seq, batch.previous, batch.position, batch.events) == (seq, seq, position, ())
