"""From a raised alert to its receiver, through the daemon: nothing is lost, and each attempt has the same id."""

from __future__ import annotations

import json

import asyncpg

from handlers.channels.webhook import signature
from tests.channel_kit import hooks, telling
from tests.conftest import eventually


async def test_an_alert_is_told_and_its_end_too_signed_and_under_one_id_however_often_it_was_tried(
    dsn: str, sql: asyncpg.Connection
) -> None:
    async with hooks("/ops") as [ops]:
        channels = {"ops": {"type": "webhook", "url": ops.url, "secret": "s3cret", "interval": 0}}
        ops.answer = 503
        async with telling(dsn, channels=channels):
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
