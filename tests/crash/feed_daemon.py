"""A whole process with the feed in it, for tests that kill it: says what it hears as lines of JSON.

Run as `python -m tests.crash.feed_daemon DSN NAME`. Lines: {"leading": term}, {"consuming": true}, {"told": keys},
{"handled": keys}, {"flush": reason}, {"missed": reason}, {"refused": text}.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

import structlog
import uvloop

from pipeline.core.events import Batch, Event
from pipeline.core.snapshot import Snapshot
from pipeline.db.connection import Database
from pipeline.feed.consumers import Consumers
from pipeline.feed.follower import Follower
from pipeline.feed.pump import Pump
from pipeline.runtime import Supervisor


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def keys(events: Sequence[Event]) -> list[str]:
    return [key for event in events for key in event.keys or ()]


class Talker:
    """Hears and handles everything, and says so."""

    name = "talker"

    def on_batch(self, batch: Batch) -> None:
        if told := keys(batch.events):
            say(told=told)

    def on_position(self, position: Snapshot) -> None:
        pass

    def on_flush(self, reason: str) -> None:
        say(flush=reason)

    def on_down(self, reason: str) -> None:
        pass

    async def handle(self, events: Sequence[Event]) -> None:
        say(handled=keys(events))

    async def missed(self, reason: str) -> None:
        say(missed=reason)


def note(_logger: object, _method: str, event: dict[str, Any]) -> str:
    if event.get("service") == "pump":
        say(refused=str(event.get("error")))
    raise structlog.DropEvent


async def main(dsn: str, name: str) -> None:
    talker = Talker()
    async with Database(dsn, purpose=name) as database:
        pump = Pump(dsn, database)
        consumers = Consumers(dsn, database, [talker])
        supervisor = Supervisor([pump, Follower(dsn, [talker, consumers]), consumers], drain_timeout=5)
        supervisor.start()
        state: tuple[int, bool] = (0, False)
        while True:
            now = (pump._term if pump.leading else 0, consumers.leading)
            if now != state:
                state = now
                say(leading=now[0], consuming=now[1])
            await asyncio.sleep(0.02)


if __name__ == "__main__":
    structlog.configure(processors=[note])
    uvloop.run(main(sys.argv[1], sys.argv[2]))
