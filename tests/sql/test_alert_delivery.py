"""Telling, in Postgres: rounds, what holds back, what people do, and a long random course of it all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import asyncpg
import pytest

from pipeline.core.alert_flush import Pace
from pipeline.core.alert_message import Notification
from pipeline.core.alert_round import Route
from pipeline.db.alert_delivery import ChannelRow, DeliveryStore
from pipeline.db.alerts import AlertStore
from pipeline.db.connection import Database
from pipeline.db.statements import statement
from tests.time_kit import stand_at

NOON = 1_800_000_000
PACE = Pace(interval=30, repeat=600, burst=3, every=20)


class Desk:
    """A channel `ops` whose receiver accepts when told to, and a clock."""

    def __init__(self, db: Database, sql: asyncpg.Connection) -> None:
        self.db, self.sql, self.now = db, sql, NOON
        self.store, self.route = DeliveryStore(db), Route("ops")
        self.got: list[Notification] = []

    async def register(self, definition: str = "all") -> None:
        await self.store.register([ChannelRow("ops", "webhook", definition)], PACE)

    async def pass_time(self, seconds: float) -> None:
        """In this session and in the pool's, which is of one connection."""
        self.now += seconds
        await stand_at(self.sql, self.now)
        async with self.db.acquire() as connection:
            await stand_at(connection, self.now)  # type: ignore[arg-type]

    async def raise_(self, rule: str, **labels: str) -> None:
        await self.sql.execute(
            "select pipeline.raise_alert($1, 'x', labels => $2::jsonb)", rule, json.dumps(labels)
        )
        await AlertStore(self.db).take_inbox()

    async def resolve(self, rule: str, **labels: str) -> None:
        await self.sql.execute("select pipeline.resolve_alert($1, $2::jsonb)", rule, json.dumps(labels))
        await AlertStore(self.db).take_inbox()

    async def told(self, *, after: float = 0) -> list[tuple[str, str, str]]:
        """A round and its delivery: reason, status and rule of each alert, sorted."""
        if after:
            await self.pass_time(after)
        await self.store.round(self.route, PACE)
        made = []
        for row in await self.sql.fetch("select id::text from pipeline.alert_notification where state = 'open'"):
            taken = await self.store.take(row["id"])
            assert taken is not None
            made.append(taken.notification)
            await self.store.end(row["id"], told=True)
        self.got += made
        return sorted((one.reason, line.status, line.rule) for one in made for line in one.alerts)


@pytest.fixture
async def desk(dsn: str, sql: asyncpg.Connection) -> AsyncIterator[Desk]:
    async with Database(dsn, max_size=1) as db:
        made = Desk(db, sql)
        await made.pass_time(0)
        await made.register()
        yield made


async def test_new_alerts_of_a_rule_wait_for_its_interval_and_old_ones_are_repeated(desk: Desk) -> None:
    await desk.raise_("a", n="1")
    assert await desk.told() == [("new", "firing", "a")]
    await desk.raise_("a", n="2")
    await desk.raise_("b")
    assert await desk.told(after=29) == [("new", "firing", "b")]
    assert await desk.told(after=1) == [("new", "firing", "a")]
    assert await desk.told(after=569) == []
    assert await desk.told(after=1) == [("repeat", "firing", "a")]
    assert desk.got[-1].alerts[0].labels == {"n": "1"}
    await desk.resolve("a", n="1")
    await desk.resolve("a", n="2")
    await desk.resolve("b")
    assert await desk.told(after=31) == [("resolved", "resolved", "a")] * 2 + [("resolved", "resolved", "b")]
    assert await desk.told(after=10_000) == []


async def test_an_alert_that_flaps_is_told_each_time_and_one_that_came_and_went_unseen_never(desk: Desk) -> None:
    for _ in range(2):
        await desk.raise_("a")
        assert await desk.told(after=31) == [("new", "firing", "a")]
        await desk.resolve("a")
        assert await desk.told(after=31) == [("resolved", "resolved", "a")]
    await desk.raise_("a")
    await desk.resolve("a")
    assert await desk.told(after=31) == []
    await desk.raise_("a")
    assert await desk.told(after=31) == [("new", "firing", "a")]
    await desk.resolve("a")
    await desk.raise_("a")
    assert await desk.told(after=31) == [("new", "firing", "a")], "another episode"


async def test_that_all_of_a_rule_is_over_is_told_at_once_and_a_part_of_it_with_the_interval(desk: Desk) -> None:
    await desk.raise_("a", n="1")
    await desk.raise_("a", n="2")
    assert await desk.told() == [("new", "firing", "a")] * 2
    await desk.resolve("a", n="1")
    assert await desk.told(after=1) == []
    await desk.resolve("a", n="2")
    assert await desk.told() == [("resolved", "resolved", "a")] * 2
    await desk.raise_("a", n="1")
    assert await desk.told(after=29) == []
    assert await desk.told(after=1) == [("new", "firing", "a")]


@pytest.mark.parametrize(
    ("hold", "end"),
    [
        (
            "select pipeline.silence('{\"rule\": \"a*\"}', 'why', duration => '1 hour')",
            "select pipeline.unsilence(1)",
        ),
        ("select pipeline.silence('{\"label.n\": \"1\"}', 'why', until => pipeline.now() + '1 minute')", ""),
        ("select pipeline.alert_ack('a', note => 'at it')", "select pipeline.alert_unack('a')"),
        (
            "insert into pipeline.alert_maintenance (name, matchers, cron, length, reason, made_by)"
            " values ('m', '{}', '59 7 * * *', '2 minutes', 'why', 'ada')",
            "",
        ),
        (
            "insert into pipeline.alert_inhibition (name, source, target, equal)"
            " values ('i', '{\"rule\": \"b\"}', '{\"rule\": \"a\"}', '{label.n}')",
            "delete from pipeline.alert_inhibition",
        ),
    ],
)
async def test_what_is_held_back_is_told_when_the_hold_ends_but_an_end_is_told_at_once(
    hold: str, end: str, desk: Desk
) -> None:
    await desk.raise_("a", n="1")
    await desk.raise_("b", n="1")
    await desk.sql.execute(hold)
    first = [one for one in await desk.told() if one[2] == "a"]
    assert first == []
    assert await desk.sql.fetchval("select count(*) from pipeline.alerts() where state = 'firing'") == 2
    if end:
        await desk.sql.execute(end)
    assert ("new", "firing", "a") in await desk.told(after=61)
    await desk.sql.execute(
        hold.replace("'m'", "'n'")
        .replace("59 7", "0 8")
        .replace("2 minutes", "1 hour")
        .replace("pipeline.now() +", "pipeline.now() + '1 hour' +")
    )
    assert ("repeat", "firing", "a") not in await desk.told(after=601)
    await desk.resolve("a", n="1")
    assert ("resolved", "resolved", "a") in await desk.told(after=31)


async def test_when_tokens_run_out_the_rest_comes_as_one_digest_however_many_there_are(desk: Desk) -> None:
    await desk.sql.execute(
        "select pipeline.raise_alert('r' || n, 'x', 'critical') from generate_series(1, 2500) as n"
    )
    await desk.sql.execute(
        "select pipeline.raise_alert('many', 'x', labels => jsonb_build_object('n', n))"
        " from generate_series(1, 1500) as n"
    )
    await AlertStore(desk.db).take_inbox()
    await desk.told()
    assert sorted(one.firing for one in desk.got) == [1, 1, 3_998]
    digest = max(desk.got, key=lambda one: one.firing)
    assert (len(digest.groups), digest.more_groups, len(digest.alerts)) == (50, 2_449, 50)
    assert await desk.told(after=31) == []
    await desk.sql.execute("select pipeline.resolve_alert('r' || n) from generate_series(1, 2500) as n")
    await AlertStore(desk.db).take_inbox()
    await desk.told(after=31)
    assert sum(one.resolved for one in desk.got) == 2_500
    assert await desk.sql.fetchval("select count(*) from pipeline.alert_told") == 1_500


async def test_a_channel_that_is_told_of_other_alerts_looks_at_those_again_that_it_was_not_told_of(
    desk: Desk,
) -> None:
    desk.route = Route("ops", ({"rule": "b"},))
    await desk.raise_("a")
    await desk.raise_("b")
    assert await desk.told() == [("new", "firing", "b")]
    desk.route = Route("ops")
    assert await desk.told(after=31) == []
    await desk.register("another")
    assert await desk.told(after=31) == [("new", "firing", "a")]


async def test_two_processes_make_a_notification_once(dsn: str, sql: asyncpg.Connection) -> None:
    async with Database(dsn) as db, Database(dsn) as other:
        desk = Desk(db, sql)
        await desk.register()
        for n in range(5):
            await desk.raise_("a", n=str(n))
            await desk.raise_(f"r{n}")
            await asyncio.gather(*(DeliveryStore(one).round(desk.route, PACE) for one in (db, other) * 2))
    members = await sql.fetch(
        "select m ->> 'rule' as rule, m ->> 'instance' as instance"
        " from pipeline.alert_notification, jsonb_array_elements(members) as m"
    )
    assert len(members) == len(set(map(tuple, members)))


async def test_people_leave_their_traces(desk: Desk) -> None:
    sql = desk.sql
    await desk.raise_("a", n="1")
    await desk.raise_("a", n="2")
    assert await sql.fetchval("""select pipeline.alert_ack('a', '{n="1"}', 'at it', 'ada')""") == 1
    assert await sql.fetchval("select pipeline.alert_resolve('a', note => 'refilled', by => 'bob')") == 2
    assert await sql.fetchval("select count(*) from pipeline.alerts() where state = 'resolved'") == 2
    await sql.execute("select pipeline.alert_note('a', 'the pump was broken', by => 'ada')")
    id_ = await sql.fetchval(
        """select pipeline.silence('{"rule": "a"}', 'pump', duration => '1 hour', by => 'bob')"""
    )
    assert await sql.fetchval("select pipeline.unsilence($1)", id_) is True
    assert await sql.fetchval("select pipeline.unsilence($1)", id_) is False
    rows = await sql.fetch("select what, by, message from pipeline.alert_log(rule => 'a') where by is not null")
    assert {(row["what"], row["by"]) for row in rows} == {
        ("ack", "ada"),
        ("resolve", "bob"),
        ("note", "ada"),
        ("silence", "bob"),
        ("unsilence", await sql.fetchval("select session_user::text")),
    }
    changes = await sql.fetch("select what, message from pipeline.alert_log() where by is null order by what")
    assert [row["what"] for row in changes] == ["firing -> resolved"] * 2 + ["inactive -> firing"] * 2
    assert all("resolved by bob" in row["message"] for row in changes[:2])


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("silence('{}', 'why')", "needs an end"),
        ("silence('{}', 'why', duration => '1 hour', until => 'infinity')", "needs an end"),
        ("silence('{}', 'why', until => 'infinity')", "does not lie ahead"),
        ("silence('{}', 'why', duration => '-1 hour')", "does not lie ahead"),
        ("silence('{}', ' ', duration => '1 hour')", "needs a reason"),
        ("silence('[]', 'why', duration => '1 hour')", "matchers are a JSON object"),
        ("silence('{\"state\": \"x\"}', 'why', duration => '1 hour')", "there is no attribute state"),
        ("silence('{\"rule\": 1}', 'why', duration => '1 hour')", "rule should be a text"),
        ("alert_ack('nothing')", "neither pends nor fires"),
        ("alert_resolve('nothing')", "neither pends nor fires"),
        ("alert_note('a', ' ')", "the note is empty"),
    ],
)
async def test_what_cannot_be_meant_is_refused(call: str, reason: str, sql: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.PostgresError, match=reason):
        await sql.execute(f"select pipeline.{call}")


async def test_pruning_forgets_what_is_over_and_keeps_what_is_not(desk: Desk) -> None:
    await desk.raise_("a")
    await desk.raise_("b")
    await desk.sql.execute("select pipeline.alert_ack('a'), pipeline.alert_ack('b')")
    await desk.sql.execute("select pipeline.alert_unack('b'), pipeline.silence('{}', 'why', duration => '1 hour')")
    await desk.sql.execute("select pipeline.unsilence(1)")
    assert await desk.told() == [("new", "firing", "b")]
    await desk.raise_("c")
    await desk.store.round(desk.route, PACE)
    await desk.pass_time(6 * 86_400)
    await desk.register()
    await desk.pass_time(2 * 86_400)
    await desk.store.prune()

    async def count(table: str) -> int:
        return int(await desk.sql.fetchval(f"select count(*) from pipeline.alert_{table}"))

    assert [await count(table) for table in ("channel", "notification", "told", "ack", "silence", "group")] == [
        1, 1, 1, 1, 0, 1,
    ]  # fmt: skip
    await desk.resolve("a")
    await desk.pass_time(91 * 86_400)
    await desk.store.prune()
    assert [await count(table) for table in ("channel", "ack", "note")] == [0, 0, 0]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whatever_happens_the_receiver_hears_the_truth_and_nothing_twice(seed: int, desk: Desk) -> None:
    """As tests/pure/test_delivery_machine.py, with the store that counts."""
    draw, sql = Random(seed), desk.sql
    believes: dict[tuple[str, str], int] = {}
    heard: set[str] = set()
    fired: set[tuple[str, str, int]] = set()

    def hear(id_: str, body: dict[str, Any], members: list[dict[str, Any]]) -> None:
        if id_ in heard:
            return
        heard.add(id_)
        for one in members:
            key = (one["rule"], one["instance"])
            if one["change"] == "resolved":
                assert believes.pop(key) == one["episode"]
                continue
            if believes.get(key) != one["episode"]:
                assert (*key, one["episode"]) not in fired
            fired.add((*key, one["episode"]))
            believes[key] = one["episode"]

    async def deliver(*, surely: bool) -> None:
        rows = await sql.fetch(
            "select id::text, body::text, members::text from pipeline.alert_notification where state = 'open'"
        )
        for row in rows:
            fate = 1.0 if surely else draw.random()
            if fate < 0.3:
                continue  # not reached
            assert await desk.store.take(row["id"])
            hear(row["id"], json.loads(row["body"]), json.loads(row["members"]))
            if fate > 0.6:
                await desk.store.end(row["id"], told=True)  # else the answer was lost

    for _ in range(60):
        name, labels = draw.choice("abcd"), {"n": draw.choice("12")}
        match draw.randrange(8):
            case 0 | 1 | 2:
                await desk.raise_(name, **labels)
            case 3 | 4:
                await desk.resolve(name, **labels)
            case 5:
                await sql.execute(
                    "select pipeline.silence(jsonb_build_object('rule', $1::text), 'why', duration => '1 minute')",
                    name,
                )
            case 6:
                await desk.pass_time(draw.choice([1, 31, 70]))
            case _:
                await sql.execute("delete from pipeline.job where task = 'pgreflex.notify'")
        await desk.store.round(desk.route, PACE)
        lost = (
            "select count(*) from pipeline.alert_notification"
            " where state = 'open' and job not in (select id from pipeline.job)"
        )
        assert await sql.fetchval(lost) == 0
        twice = (
            "select count(*) from (select from pipeline.alert_notification, unnest(groups) as name"
            " where state = 'open' group by name having count(*) > 1) as t"
        )
        assert await sql.fetchval(twice) == 0
        await deliver(surely=False)
    for _ in range(8):
        await desk.pass_time(120)
        await deliver(surely=True)
        await desk.store.round(desk.route, PACE)
    firing = await sql.fetch("select rule, instance, episode from pipeline.alert_state where state = 'firing'")
    assert believes == {(row["rule"], row["instance"]): row["episode"] for row in firing}
    assert len(heard) > 10


async def test_a_channel_that_is_told_of_grave_alerts_only_hears_of_one_that_becomes_grave(desk: Desk) -> None:
    desk.route = Route("ops", ({"severity": "critical"},))

    async def say(severity: str) -> None:
        await desk.sql.execute("select pipeline.raise_alert('a', 'x', $1)", severity)
        await AlertStore(desk.db).take_inbox()

    await say("warning")
    assert await desk.told() == []
    await say("critical")
    assert await desk.told() == [("new", "firing", "a")]
    await desk.resolve("a")
    await say("warning")
    assert await desk.told(after=31) == [("resolved", "resolved", "a")], "what fires now is not for this channel"
    assert await desk.told(after=31) == []


async def test_a_clock_that_is_set_back_keeps_nothing_from_being_told(desk: Desk) -> None:
    await desk.raise_("a", n="1")
    assert await desk.told() == [("new", "firing", "a")]
    for n in range(2, 4):
        await desk.raise_(f"b{n}")
    assert len(await desk.told()) == 2, "no token is left"
    await desk.raise_("a", n="2")
    assert await desk.told(after=-86_400) == []
    assert await desk.told(after=20) == [("new", "firing", "a")]


async def test_a_channel_that_is_forgotten_leaves_no_notification_and_no_alert_of_ours(desk: Desk) -> None:
    await desk.raise_("a")
    assert await desk.store.round(desk.route, PACE) == 1
    id_ = await desk.sql.fetchval("select id::text from pipeline.alert_notification")
    assert await desk.store.waits(id_)
    await desk.pass_time(301)
    await desk.store.problem(id_, "it is away")
    await AlertStore(desk.db).take_inbox()
    own = "select state from pipeline.alerts() where rule = 'pgreflex delivery failed'"
    assert await desk.sql.fetchval(own) == "firing"
    await desk.pass_time(8 * 86_400)
    await desk.store.prune()
    await AlertStore(desk.db).take_inbox()
    assert await desk.sql.fetchval(own) == "resolved"
    assert not await desk.store.waits(id_)


async def test_a_resolved_alert_is_kept_until_who_was_told_of_it_knows(desk: Desk) -> None:
    await desk.raise_("a", n="1")
    assert await desk.told() == [("new", "firing", "a")]
    await desk.resolve("a", n="1")
    await desk.pass_time(3_600)
    await AlertStore(desk.db).prune()
    assert await desk.told() == [("resolved", "resolved", "a")]
    assert desk.got[-1].alerts[0].labels == {"n": "1"}
    await AlertStore(desk.db).prune()
    assert await desk.sql.fetchval("select count(*) from pipeline.alert_state") == 0


async def test_what_is_over_is_found_without_a_look_at_all_others_for_each(sql: asyncpg.Connection) -> None:
    await sql.execute(f"prepare over (text, text[], text[], bigint) as {statement('delivery/over')}")
    plan = await sql.fetch("explain execute over ('ops', '{}', '{storm}', 10000)")
    text = "\n".join(row[0] for row in plan)
    assert "InitPlan" in text
    assert "SubPlan" not in text, "with 40,000 of a rule it took longer than the timeout, round after round"
