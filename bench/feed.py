"""What the feed costs the writers, and how fast it delivers. `make bench-feed`.

Owns: the measurement. The daemon runs as a process of its own all the time; writers are pgbench's.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import msgspec
import uvloop

from bench.report import QUICK, Report, quantile
from pipeline.core.events import Batch
from pipeline.core.snapshot import Snapshot
from pipeline.core.status import Status
from pipeline.db.migrate import migrate
from pipeline.embedded import EmbeddedServer
from pipeline.feed.follower import Follower
from pipeline.runtime import Supervisor

WRITERS = 8
ROUNDS = 3 if QUICK else 8
ROUND_SECONDS = 2 if QUICK else 3
FLUSH_MICROSECONDS = 500  # a fast disk in a cloud
SAMPLES = 60 if QUICK else 400
BACKLOG = 100_000 if QUICK else 400_000
PORT = 8797
SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "30min"}
TABLES = ("bare", "naive", "watched")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pgreflex-bench-") as home:
        Path(home).chmod(0o711)
        with EmbeddedServer(Path(home) / "server", settings=SETTINGS, database="bench") as server:
            report = Report("feed", server.version)
            uvloop.run(prepare(server.dsn))
            measure(server, report)
            report.finish()


def measure(server: EmbeddedServer, report: Report) -> None:
    with daemon(server.dsn):
        time.sleep(5)
        idle = status().resident_bytes
        write_rates(server, report)
        slow_disk_rates(server, report)
        latencies = uvloop.run(idle_latencies(server.dsn))
        report.goal("idle latency p50, ms", quantile(latencies, 0.50), "<=", 2, f"{SAMPLES} writes")
        report.goal("idle latency p99, ms", quantile(latencies, 0.99), "<=", 10, f"{SAMPLES} writes")
        report.goal("resident memory idle, MB", (idle or 0) / 1e6, "<=", 90, "VmRSS, 5 s after the start")
        report.figure("resident memory after the load, MB", (status().resident_bytes or 0) / 1e6)
    stopped_rate(server, report)
    rate = uvloop.run(drain_rate(server, report))
    report.goal("backlog drained, events/s", rate, ">=", 50_000, f"{BACKLOG} events, one a statement")


def slow_disk_rates(server: EmbeddedServer, report: Report) -> None:
    """The same where a commit waits for its disk, as most do, instead of for a free core."""
    ratios: dict[str, list[float]] = {"bare": [], "naive": []}
    for _round in range(ROUNDS):
        rates = {table: insert(server, table, flush_microseconds=FLUSH_MICROSECONDS) for table in TABLES}
        for other, found in ratios.items():
            found.append(rates["watched"] / rates[other])
    for other, found in ratios.items():
        report.figure(f"watched/{other}, commits that wait {FLUSH_MICROSECONDS} us", statistics.median(found))


def write_rates(server: EmbeddedServer, report: Report) -> None:
    """Inserts a second into each table, in turn, so that a noisy minute hits all three."""
    rates: dict[str, list[float]] = {table: [] for table in TABLES}
    notices: list[float] = []
    for _round in range(ROUNDS):
        for table in TABLES:
            before = status()
            rate = insert(server, table)
            rates[table].append(rate)
            if table == "watched":
                after = status()
                notices.append(1000 * notified(before, after) / (rate * ROUND_SECONDS))
            report.say(f"{table:8} {rate:8,.0f} inserts/s")
    for table in TABLES:
        report.figure(f"{table}, inserts/s", statistics.median(rates[table]))
    detail = f"median of {ROUNDS} rounds of {ROUND_SECONDS} s a table, {WRITERS} writers"
    for name, goal in (("bare", 0.80), ("naive", 2.2)):
        # a ratio for each round: its three runs stand side by side in time
        ratios = [w / other for w, other in zip(rates["watched"], rates[name], strict=True)]
        report.goal(f"watched/{name}", statistics.median(ratios), ">=", goal, detail)
    report.goal(
        "notifications per 1,000 writes",
        statistics.median(notices),
        "<",
        5,
        "bells, batches and beats, under load",
    )


def stopped_rate(server: EmbeddedServer, report: Report) -> None:
    """What the writers lose while no daemon runs at all."""
    ratios = []
    for _round in range(ROUNDS):
        bare = insert(server, "bare")
        ratios.append(insert(server, "watched") / bare)
    report.figure("watched/bare without a daemon", statistics.median(ratios))


def notified(before: Status, after: Status) -> float:
    """Notifications between two statuses: bells, batches, and the beats of that time."""
    if before.feed is None or after.feed is None:
        raise RuntimeError("the daemon tells nothing of its feed")
    bells = after.feed.bells_total - before.feed.bells_total
    batches = after.feed.batches_total - before.feed.batches_total
    return bells + batches + 4 * (after.at - before.at)


def insert(server: EmbeddedServer, table: str, flush_microseconds: int = 0) -> float:
    """Inserts a second, by pgbench. flush_microseconds: how long each group of commits waits before its flush."""
    script = f"insert into bench_{table} (account, note) values (:client_id, 'a note of some length');\n"
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        argv, env = server.command(
            "pgbench", "-n", "-M", "prepared", "-c", str(WRITERS), "-j", "2", "-T", str(ROUND_SECONDS),
            "-f", file.name, "bench",
        )  # fmt: skip
        env = {**env, "PGOPTIONS": f"-c commit_delay={flush_microseconds} -c commit_siblings=0"}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    found = re.search(r"tps = ([0-9.]+)", done.stdout)
    if found is None:
        raise RuntimeError(f"pgbench said nothing of its rate: {done.stdout}")
    return float(found.group(1))


async def prepare(dsn: str) -> None:
    await migrate(dsn)
    connection = await asyncpg.connect(dsn)
    await connection.execute((Path(__file__).with_name("feed.sql")).read_text())
    await connection.close()


class Ear:
    """A FeedSink that notes when each key and each batch came."""

    def __init__(self) -> None:
        self.heard: dict[str, float] = {}
        self.events = 0
        self.first = self.last = 0.0
        self.news = asyncio.Event()

    def on_batch(self, batch: Batch) -> None:
        now = time.perf_counter()
        for event in batch.events:
            if event.name == "bench_watched":
                self.events += 1
                self.first, self.last = self.first or now, now
                for key in event.keys or ():
                    self.heard[key] = now
        self.news.set()

    def on_position(self, position: Snapshot) -> None:
        """Not measured."""

    def on_flush(self, reason: str) -> None:
        """Not measured."""

    def on_down(self, reason: str) -> None:
        """Not measured."""


async def idle_latencies(dsn: str) -> list[float]:
    """Milliseconds from a commit's answer to its delivery in another process, on an idle feed."""
    ear = Ear()
    supervisor = Supervisor([Follower(dsn, [ear])])
    supervisor.start()
    writer = await asyncpg.connect(dsn)
    latencies = []
    await asyncio.sleep(1)
    for _sample in range(SAMPLES):
        ear.heard.clear()
        key = await writer.fetchval("insert into bench_watched (account, note) values (1, 'x') returning id")
        committed = time.perf_counter()
        while str(key) not in ear.heard:
            ear.news.clear()
            await asyncio.wait_for(ear.news.wait(), 10)
        latencies.append(max(ear.heard[str(key)] - committed, 0) * 1000)
        await asyncio.sleep(0.16)  # long enough for the pump to fall asleep again
    await writer.close()
    await supervisor.stop()
    return latencies


async def drain_rate(server: EmbeddedServer, report: Report) -> float:
    """Events a second that a starting daemon delivers out of a backlog."""
    writer = await asyncpg.connect(server.dsn)
    await writer.execute("truncate bench_watched")
    for _transaction in range(20):
        await writer.execute(
            "do $$ begin for n in 1..%s loop insert into bench_watched (account, note) values (n, 'x');"
            " end loop; end $$" % (BACKLOG // 20)
        )
    await writer.close()
    report.say(f"a backlog of {BACKLOG} events waits")
    ear = Ear()
    follower = Follower(server.dsn, [ear])
    supervisor = Supervisor([follower])
    supervisor.start()
    while follower.epoch is None:
        await asyncio.sleep(0.01)
    with daemon(server.dsn):
        while ear.events < BACKLOG:
            ear.news.clear()
            await asyncio.wait_for(ear.news.wait(), 60)
    await supervisor.stop()
    return ear.events / (ear.last - ear.first)


@contextmanager
def daemon(dsn: str) -> Iterator[None]:
    """A daemon as users run it."""
    env = {**os.environ, "PGREFLEX_HTTP_PORT": str(PORT), "PGREFLEX_LOG_LEVEL": "warning"}
    argv = [sys.executable, "run.py", "run", "--dsn", dsn]
    process = subprocess.Popen(argv, env=env, cwd=Path(__file__).parents[1])
    try:
        deadline = time.monotonic() + 20
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the daemon did not become ready")
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(20)


def ready() -> bool:
    try:
        return ask("/readyz")[0] == 200
    except OSError:
        return False


def status() -> Status:
    return msgspec.json.decode(ask("/api/v1/status")[1], type=Status)


def ask(path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


if __name__ == "__main__":
    main()
