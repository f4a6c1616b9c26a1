"""From a raised alert to its receiver, through the daemon: nothing is lost, and each attempt has the same id."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import pytest
from aiohttp import web

from handlers.channels.webhook import signature
from pipeline.db.alert_delivery import DeliveryStore
from pipeline.db.job_admin import JobAdmin
from tests.channel_kit import Hook, hooks, telling
from tests.conftest import eventually

FAILED = "pgreflex delivery failed"


def webhook(hook: Hook, **more: Any) -> dict[str, Any]:
    return {"type": "webhook", "url": hook.url, "interval": 0, **more}


async def test_an_alert_is_told_and_its_end_too_signed_and_under_one_id_however_often_it_was_tried(
    dsn: str, sql: asyncpg.Connection
) -> None:
    async with hooks("/ops") as [ops]:
        ops.answer = 503
        async with telling(dsn, channels={"ops": webhook(ops, secret="s3cret")}):
            await sql.execute("""select pipeline.raise_alert('fire', 'it burns', 'critical', '{"floor": "2"}')""")
            await eventually(lambda: len(ops.asked) >= 2, within=20)
            assert await sql.fetchval("select count(*) from pipeline.alert_told where channel = 'ops'") == 0
            ops.answer = 200
            await eventually(lambda: ops.told, within=20)
            await sql.execute("""select pipeline.resolve_alert('fire', '{"floor": "2"}')""")
            await eventually(lambda: len(ops.told) == 2, within=20)
    assert len(set(ops.ids[:-1])) == 1
    assert ops.ids[-1] not in ops.ids[:-1]
    assert ops.said() == [("new", "firing", "fire"), ("resolved", "resolved", "fire")]
    headers, body = ops.asked[-2]
    assert headers["Pgreflex-Id"] == json.loads(body)["id"]
    assert headers["Pgreflex-Signature"] == signature("s3cret", body)
    assert {line["labels"]["floor"] for one in ops.told for line in one["alerts"]} == {"2"}


async def test_an_answer_that_is_lost_comes_again_under_its_id_also_when_the_database_or_the_job_is_lost(
    dsn: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failing = DeliveryStore.end, ["once"]

    async def end(store: DeliveryStore, id_: str, **how: Any) -> None:
        if failing:
            failing.pop()
            raise ConnectionResetError("the worker dies here")
        await real(store, id_, **how)

    async def close_half_way(request: web.Request) -> web.StreamResponse:
        hook.answer = 503
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    monkeypatch.setattr(DeliveryStore, "end", end)
    async with hooks("/ops") as [hook]:
        hook.answer = close_half_way
        async with telling(
            dsn, channels={"ops": webhook(hook), "log": {"type": "log", "match": [{"rule": "no"}]}}
        ):
            await sql.execute("select pipeline.raise_alert('fire', 'it burns')")
            await eventually(lambda: len(hook.asked) >= 2, within=20)
            problem = await sql.fetchval("select problem from pipeline.alert_channels() where channel = 'ops'")
            assert "closed the connection" in problem or "answered 503" in problem
            await sql.execute("delete from pipeline.job where task = 'pgreflex.notify'")
            hook.answer = 200
            await eventually(lambda: len(hook.told) == 2, within=20, why="the attempt after the worker's death")

            async def noted() -> bool:
                return await sql.fetchval("select state = 'told' from pipeline.alert_notification")

            await eventually(noted)
    assert failing == []
    assert len(set(hook.ids)) == 1
    assert await sql.fetchval("select count(*) from pipeline.alert_notification") == 1


async def test_a_channel_that_hangs_holds_up_no_other(dsn: str, sql: asyncpg.Connection) -> None:
    async def hang(_request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with hooks("/hangs", "/works") as [hangs, works]:
        hangs.answer = hang
        channels = {
            "hangs": webhook(hangs),
            "works": webhook(works),
            "sleeps": {"type": "command", "command": ["sleep", "3600"], "interval": 0},
        }
        async with telling(dsn, channels=channels):
            for name in ("a", "b", "c"):
                await sql.execute("select pipeline.raise_alert($1, 'x')", name)
                await eventually(lambda name=name: ("new", "firing", name) in works.said(), within=5)
            assert len(hangs.asked) == 1, "one at a time"


async def test_what_can_never_be_accepted_is_dead_lettered_told_to_the_others_and_sent_when_retried(
    dsn: str, sql: asyncpg.Connection
) -> None:
    async with hooks("/gone", "/works") as [gone, works]:
        gone.answer, gone.headers = 302, {"Location": works.url}
        match = [{"rule": "a*"}, {"rule": FAILED}]
        async with telling(dsn, channels={"gone": webhook(gone, match=match), "works": webhook(works)}) as daemon:
            await sql.execute("select pipeline.raise_alert('a', 'x')")
            await eventually(lambda: ("new", "firing", FAILED) in works.said(), within=20)
            [line] = [line for one in works.told for line in one["alerts"] if line["rule"] == FAILED]
            assert (line["labels"], line["severity"]) == ({"channel": "gone"}, "critical")
            assert line["message"] == "channel gone: the webhook answered 302"
            assert len(gone.asked) == 1, "neither tried again, nor told of its own failure"
            assert sum(reason == "new" and rule == "a" for reason, _, rule in works.said()) == 1, "not redirected"
            job = await eventually(lambda: failed_job(sql), within=20)
            gone.answer, gone.headers = 200, {}
            await JobAdmin(daemon.job_database).retry([job])
            await eventually(lambda: gone.told, within=20)
            await eventually(lambda: ("resolved", "resolved", FAILED) in works.said(), within=20)
            assert gone.ids[0] == gone.ids[1]
            assert gone.said() == [("new", "firing", "a")]


async def failed_job(sql: asyncpg.Connection) -> int | None:
    return await sql.fetchval(  # type: ignore[no-any-return]
        "select id from pipeline.job_archive where state = 'failed' and task = 'pgreflex.notify'"
    )


async def test_a_pause_that_is_asked_for_is_kept(dsn: str, sql: asyncpg.Connection) -> None:
    async with hooks("/busy") as [busy]:
        busy.answer, busy.headers = 429, {"Retry-After": "120"}
        async with telling(dsn, channels={"busy": webhook(busy)}):
            await sql.execute("select pipeline.raise_alert('a', 'x')")

            async def pause() -> float | None:
                return await sql.fetchval(
                    "select extract(epoch from run_at - now())::float8 from pipeline.job where error like '%429%'"
                )

            assert 100 < await eventually(pause, within=20) <= 120


async def test_an_answer_without_end_is_not_read_and_its_status_counts(dsn: str, sql: asyncpg.Connection) -> None:
    written = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65_536)
            written += 65_536

    async with hooks("/endless") as [hook]:
        hook.answer = endless
        async with telling(dsn, channels={"endless": webhook(hook)}):
            await sql.execute("select pipeline.raise_alert('a', 'x')")
            told = "select count(*) from pipeline.alert_told where channel = 'endless'"
            await eventually(lambda: sql.fetchval(told), within=20)
    assert len(hook.asked) == 1
    assert written < 100_000_000


async def test_a_test_takes_the_whole_way_and_needs_a_channel_that_there_is(
    dsn: str, sql: asyncpg.Connection
) -> None:
    async with hooks("/ops") as [ops], telling(dsn, channels={"ops": webhook(ops)}):
        id_ = await sql.fetchval("select pipeline.alert_test('ops', by => 'ada')")
        await eventually(lambda: ops.told, within=20)
        with pytest.raises(asyncpg.PostgresError, match="there is no channel pos") as refused:
            await sql.execute("select pipeline.alert_test('pos')")
        assert refused.value.hint == "There are: log, ops"
    [body] = ops.told
    assert (body["id"], body["reason"]) == (str(id_), "test")
    assert "asked for by ada" in body["alerts"][0]["message"]


async def test_channels_in_another_process_are_told_by_that_one(dsn: str, sql: asyncpg.Connection) -> None:
    async with (
        hooks("/one", "/two") as [one, two],
        telling(dsn, channels={"one": webhook(one)}),
        telling(dsn, leads=False, channels={"two": webhook(two)}),
    ):
        await sql.execute("select pipeline.raise_alert('a', 'x')")
        await eventually(lambda: one.told and two.told, within=30)
    assert one.said() == two.said() == [("new", "firing", "a")]
