"""What holds telling back now, as it stands in Postgres.

Owns: the reading of silences, maintenance windows, inhibitions and their sources. Must not know who asks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import msgspec

from pipeline.core.alert_held import Holds, Inhibition, Maintenance, Silence
from pipeline.db.alert_rows import alert_of
from pipeline.db.connection import Record

MOST_SOURCES = 2_000

Fetch: TypeAlias = Callable[..., Awaitable[list[Record]]]
"""Runs a statement, by its name, and returns its rows."""


async def holds_of(fetch: Fetch, now: float) -> Holds:
    """All that may hold telling back at this moment."""
    [row] = await fetch("delivery/held")
    inhibitions = msgspec.json.decode(row["inhibitions"], type=list[Inhibition])
    firing = await fetch("delivery/firing", MOST_SOURCES) if inhibitions else []
    return Holds(
        msgspec.json.decode(row["silences"], type=list[Silence]),
        msgspec.json.decode(row["windows"], type=list[Maintenance]),
        inhibitions,
        [alert_of(one) for one in firing],
        now,
    )
