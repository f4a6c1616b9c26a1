"""What people read of alerts is found by its index, however long the history is."""

from __future__ import annotations

import asyncpg
import pytest

from tests.statements_kit import named_indexes, plan_of

FILL = """
insert into pipeline.alert_history (at, kind, rule, instance, episode, before, after, message, reason)
    select now() - n * interval '5 minutes', 'metric', 'r' || n % 50, '', n, 'pending', 'firing', 'x', ''
    from generate_series(1, 20000) n;
insert into pipeline.alert_note (at, rule, action, made_by)
    select now() - n * interval '5 minutes', 'r' || n % 50, 'note', 'ada' from generate_series(1, 20000) n;
insert into pipeline.alert_channel (name, kind, definition, seen_at, tokens, refilled_at)
    values ('ops', 'webhook', '', now(), 1, now());
insert into pipeline.alert_notification (channel, groups, reason, body, members, at, state)
    select 'ops', array['r' || n % 50], 'new', '{}', '[]', now() - n * interval '5 minutes', 'told'
    from generate_series(1, 20000) n;
insert into pipeline.alert_silence (matchers, starts_at, ends_at, reason, made_by, made_at)
    select '{}', now() - n * interval '1 hour', now() - (n - 2) * interval '1 hour', 'x', 'ada', now()
    from generate_series(1, 20000) n;
analyze;
"""
DAY = "86400"
VIEWS = {
    "alert_view/history": f"{DAY}, null, null, null, 200",
    "alert_view/notes": f"{DAY}, null, null, 200",
    "alert_view/notifications": f"{DAY}, null, null, null, 200",
    "alert_view/silences": "false",
}


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_a_view_of_alerts_uses_the_index_that_it_names(sql: asyncpg.Connection, mode: str) -> None:
    await sql.execute(FILL)
    await sql.execute(f"set plan_cache_mode = {mode}")
    for name, arguments in VIEWS.items():
        used = {node["Index Name"] for node in await plan_of(sql, name, arguments) if "Index Name" in node}
        assert named_indexes(name) <= used, name
