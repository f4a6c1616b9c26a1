"""Whether what alerts have to tell survives a receiver that is away. `make check-delivery`.

Owns: the writer of alerts, the course of the outage, and the judgement. bench/delivery_receiver.py is the far end.

A daemon, in a process of its own, tells three webhooks: one that breaks in all ways for ten minutes while alerts
come and go, one that hears a probe every few seconds and never breaks, and one that hangs all the time. The
daemon is killed in the middle of it. At the end the receiver must believe what is true, by what it accepted, each
id once. BENCH=quick ends within a minute.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from bench.alerts_kit import END_SECONDS, ROOT, START_SECONDS, free_port, ready
from bench.delivery_receiver import MODES, Receiver, receivers
from bench.jobs_kit import amount, execute
from bench.report import Report
from pipeline.db.migrate import migrate
from pipeline.embedded import EmbeddedServer

OUTAGE_SECONDS = amount(600, 15)
CALM_SECONDS = amount(20, 4)
PROBE_SECONDS = 6.5  # a channel is told ten times a minute
SETTLE_SECONDS = amount(180, 40)
NAMES = 12
Believed = dict[tuple[str, str], int]


class Daemon:
    """`pgreflex run` with these channels, which can be killed."""

    def __init__(self, dsn: str, channels: dict[str, dict[str, Any]]) -> None:
        self.port = free_port()
        self.argv = [sys.executable, "run.py", "run", "--dsn", dsn]
        self.env = {
            **os.environ,
            "PGREFLEX_HTTP_PORT": str(self.port),
            "PGREFLEX_LOG_LEVEL": "error",
            "PGREFLEX_JOBS_DRAIN_SECONDS": "1",
            "PGREFLEX_ALERTS_CHANNELS": json.dumps(channels),
        }

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *self.argv,
            env=self.env,
            cwd=ROOT,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while not await ready(self.port):
            if self.process.returncode is not None or time.monotonic() > deadline:
                raise RuntimeError("the daemon did not become ready")
            await asyncio.sleep(0.05)

    async def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(how)
        try:
            await asyncio.wait_for(self.process.wait(), END_SECONDS)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


class Check:
    """One run."""

    def __init__(self, dsn: str, report: Report) -> None:
        self.dsn, self.report, self.rng = dsn, report, random.Random(7)
        self.writing = True
        self.written = 0

    async def run(self) -> None:
        await migrate(self.dsn)
        await execute(self.dsn, "delete from pipeline.alert_rule")
        async with receivers() as (flaky, steady, stuck):
            stuck.mode = "hangs"
            mine = [{"rule": "alert *"}]
            daemon = Daemon(
                self.dsn,
                {
                    "flaky": {"type": "webhook", "url": flaky.url, "interval": 1, "match": mine},
                    "steady": {"type": "webhook", "url": steady.url, "match": [{"rule": "probe *"}]},
                    "stuck": {"type": "webhook", "url": stuck.url, "interval": 1},
                },
            )
            await daemon.start()
            connection = await asyncpg.connect(self.dsn)
            work = [asyncio.create_task(self.write()), asyncio.create_task(self.probe(steady))]
            try:
                await asyncio.sleep(CALM_SECONDS)
                await self.outage(flaky, daemon)
                await asyncio.sleep(CALM_SECONDS)
                self.writing = False
                await asyncio.gather(*work)
                took = await self.settled(connection, flaky)
                await self.judge(connection, flaky, stuck, took)
            finally:
                for task in work:
                    task.cancel()
                await daemon.end()
                await connection.close()

    async def write(self) -> None:
        """Alerts that come and go."""
        connection = await asyncpg.connect(self.dsn)
        while self.writing:
            name = f"alert {self.rng.randrange(NAMES)}"
            verb = "raise_alert($1, 'x')" if self.rng.random() < 0.5 else "resolve_alert($1)"
            await connection.execute(f"select pipeline.{verb}", name)
            self.written += 1
            await asyncio.sleep(self.rng.random())
        await connection.close()

    async def probe(self, steady: Receiver) -> None:
        """What a channel that works has to hear soon, whatever the others do."""
        connection = await asyncpg.connect(self.dsn)
        waits: list[float] = []
        while self.writing:
            name = f"probe {len(waits)}"
            began = time.monotonic()
            await connection.execute("select pipeline.raise_alert($1, 'x')", name)
            while (name, "") not in steady.believes and time.monotonic() < began + 30:
                await asyncio.sleep(0.02)
            waits.append(time.monotonic() - began)
            await asyncio.sleep(PROBE_SECONDS)
        await connection.close()
        detail = f"of {len(waits)}, while others hang; the daemon was killed meanwhile"
        self.report.figure("probe, worst, s", max(waits))
        self.report.goal("probe, second worst, s", sorted(waits)[-2], "<=", 3.0, detail)

    async def outage(self, flaky: Receiver, daemon: Daemon) -> None:
        share = OUTAGE_SECONDS / len(MODES)
        self.report.say(f"the receiver breaks for {OUTAGE_SECONDS} s: {', '.join(MODES)}")
        for place, mode in enumerate(MODES):
            await flaky.become(mode)
            await asyncio.sleep(share)
            if place == len(MODES) // 2:
                await daemon.end(signal.SIGKILL)
                await daemon.start()
        await flaky.become("works")
        self.report.figure("requests during the outage", flaky.asked)

    async def truth(self, connection: asyncpg.Connection) -> Believed:
        rows = await connection.fetch(
            "select rule, instance, episode from pipeline.alert_state"
            " where state = 'firing' and rule like 'alert %'"
        )
        return {(row["rule"], row["instance"]): row["episode"] for row in rows}

    async def settled(self, connection: asyncpg.Connection, flaky: Receiver) -> float:
        """Seconds until the receiver believes what is true."""
        began = time.monotonic()
        open_ = "select count(*) from pipeline.alert_notification where state = 'open' and channel = 'flaky'"
        inbox = "select count(*) from pipeline.alert_inbox"
        while time.monotonic() < began + SETTLE_SECONDS:
            quiet = not await connection.fetchval(open_) and not await connection.fetchval(inbox)
            if quiet and flaky.believes == await self.truth(connection):
                break
            await asyncio.sleep(0.1)
        return time.monotonic() - began

    async def judge(self, connection: asyncpg.Connection, flaky: Receiver, stuck: Receiver, took: float) -> None:
        report = self.report
        told = await connection.fetch(
            "select id::text, state from pipeline.alert_notification where channel = 'flaky' and reason <> 'test'"
        )
        noted = {row["id"] for row in told if row["state"] == "told"}
        truth = await self.truth(connection)
        wrong = {key for key in truth.keys() | flaky.believes.keys() if truth.get(key) != flaky.believes.get(key)}
        report.figure("alerts raised and resolved", self.written)
        report.figure("notifications", len(told))
        report.goal("came again under its id, since the answer was lost", flaky.again, ">=", 1)
        report.goal("seconds until the receiver knew the truth", took, "<", SETTLE_SECONDS)
        report.goal("alerts of which the receiver is wrong", len(wrong), "<=", 0, f"{len(truth)} fire")
        report.goal("notifications lost: noted as told, never accepted", len(noted - flaky.bodies.keys()), "<=", 0)
        report.goal("notifications doubled: other words under one id", flaky.changed, "<=", 0)
        report.goal("alerts told twice under two ids", flaky.twice, "<=", 0)
        report.goal("ends told of alerts nobody knew of", flaky.unknown, "<=", 0)
        report.goal("given up", sum(row["state"] == "failed" for row in told), "<=", 0)
        report.goal("requests at a time to one that hangs", stuck.most, "<=", 1, f"of {stuck.asked}")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pgreflex-check-") as home:
        Path(home).chmod(0o711)
        with EmbeddedServer(Path(home) / "server", settings={"fsync": "off"}) as server:
            report = Report("check-delivery", server.version)
            with suppress(KeyboardInterrupt):
                uvloop.run(Check(server.dsn, report).run())
                sys.exit(0 if report.finish() else 1)


if __name__ == "__main__":
    main()
