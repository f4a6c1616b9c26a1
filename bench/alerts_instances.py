"""What ten thousand instances cost one evaluator: rules over stored digests, round after round.

Owns: what is stored, the script of good and bad windows, and the median of each kind of round. A round is one
window of one rule: measured by the server, judged, saved.
"""

from __future__ import annotations

import statistics
import time
from random import Random
from typing import Any, Literal, NamedTuple

import asyncpg

from bench.jobs_child import Child, child, module
from bench.jobs_kit import Bench, settle
from bench.report import QUICK
from pipeline.core.digest import Digest
from pipeline.core.series import Series
from pipeline.core.window import Part
from pipeline.db.connection import Database
from pipeline.db.latency import LatencyStore

INSTANCES = 10_000
SAMPLES = 20  # of a series in a window of five seconds: 40,000 timings a second in all
FLAPPING = 10  # one of so many
GOOD_MS, BAD_MS = 10.0, 1_000.0
THRESHOLD = 200.0
START_SECONDS = 20.0
ROUND_SECONDS = 120.0
Kind = Literal["good", "bad", "flap"]
SCRIPT: list[tuple[str, Kind]] = [
    *[("all good", "good")] * 3,
    ("all begin to fire", "bad"),
    *[("all bad", "bad")] * 3,
    ("all are resolved", "good"),
    *[("a tenth flapping", "flap"), ("a tenth flapping", "good")] * 3,
]
KINDS = tuple(dict.fromkeys(name for name, _kind in SCRIPT))
CHANGES = {
    "all good": 0, "all bad": 0, "all begin to fire": INSTANCES, "all are resolved": INSTANCES,
    "a tenth flapping": INSTANCES // FLAPPING,
}  # fmt: skip
MEMORY = f"memory that {INSTANCES:,} instances take of the evaluator, MB"


def goal(kind: str, seconds: int) -> str:
    return f"a round of {INSTANCES:,} instances, windows of {seconds} s, {kind}, s"


WINDOWS = (5, 60) if not QUICK else (5,)
GOALS = {goal(kind, seconds): ("<=", 1.0) for seconds in WINDOWS for kind in KINDS} | {MEMORY: ("<=", 100.0)}


class Round(NamedTuple):
    """What one round cost. own: processor time of the evaluator, without the server's."""

    seconds: float
    own: float
    megabytes: float


async def measure(bench: Bench) -> None:
    report, worst = bench.report, 0.0
    for seconds in WINDOWS:
        async with bench.database("instances") as dsn:
            first = await store(dsn, seconds)
            await settle(dsn)
            rounds = await judge(bench, dsn, first, seconds)
        for kind in KINDS:
            of_kind = rounds[kind]
            own = statistics.median(one.own for one in of_kind)
            report.goal(
                goal(kind, seconds),
                statistics.median(one.seconds for one in of_kind),
                *GOALS[goal(kind, seconds)],
                f"{len(of_kind)} rounds, latency.p95; {own:.2f} s of processor time in the evaluator",
            )
        worst = max(worst, *(one.megabytes for of_kind in rounds.values() for one in of_kind))
    report.goal(MEMORY, worst, *GOALS[MEMORY], "the most that it ever occupied, above what it has after its start")


async def store(dsn: str, seconds: int) -> int:
    """Write every window of the script, not rolled up, as it is when it is judged; returns the first one's start.

    One window of each kind is made and written as a recorder does it; the others are copies of these rows.
    """
    first = int(time.time()) // 60 * 60 - (len(SCRIPT) + 1) * seconds
    made: dict[Kind, int] = {"good": 0, "bad": 5, "flap": 10}  # starts of the originals, in the year 1970
    random = Random(1)
    pools = {
        ms: [[random.lognormvariate(0, 0.5) * ms for _ in range(SAMPLES)] for _ in range(200)]
        for ms in (GOOD_MS, BAD_MS)
    }
    async with Database(dsn, purpose="bench", max_size=2) as database:
        stored = LatencyStore(database)
        for kind, start in made.items():
            parts = []
            for n in range(INSTANCES):
                bad = kind == "bad" or (kind == "flap" and n % FLAPPING == 0)
                parts.append(Part(line(n), start, Digest(pools[BAD_MS if bad else GOOD_MS][n % 200])))
            await stored.flush(stored.number(parts))
    connection = await asyncpg.connect(dsn)
    try:
        copy = """
            insert into pipeline.timing_batch (writer, number, start, written_at, series, digests)
            select gen_random_uuid(), number, to_timestamp($2::float8), pipeline.now(), series, digests
            from pipeline.timing_batch where start = to_timestamp($1::float8)
        """
        for place, (_name, kind) in enumerate(SCRIPT):
            for start in range(first + place * seconds, first + (place + 1) * seconds, 5):
                await connection.execute(copy, float(made[kind]), float(start))
        await connection.execute("delete from pipeline.timing_batch where start < to_timestamp(60)")
    finally:
        await connection.close()
    return first


def line(n: int) -> Series:
    """One of the series, as the queries of an application have them."""
    labels = {"fingerprint": f"{n:016x}"}
    return Series(f'query{{fingerprint="{labels["fingerprint"]}"}}', "query", "query", labels)


async def judge(bench: Bench, dsn: str, first: int, seconds: int) -> dict[str, list[Round]]:
    """Judge every window of the script in order."""
    rounds: dict[str, list[Round]] = {kind: [] for kind in KINDS}
    connection = await asyncpg.connect(dsn)
    try:
        rule = await connection.fetchval(
            "select pipeline.alert_rule_set('many', 'latency.p95', 'query%', $1, over => $2 * interval '1 s',"
            " need => 1, keep_firing => 1, max_instances => $3)",
            THRESHOLD, float(seconds), INSTANCES,
        )  # fmt: skip
        await connection.execute(
            "update pipeline.alert_progress set judged_until = to_timestamp($2) where rule_id = $1",
            rule, float(first),
        )  # fmt: skip
        async with child("evaluator", module("alerts_judge", dsn)) as evaluator:
            await evaluator.hear("ready", START_SECONDS)
            for place, (name, _kind) in enumerate(SCRIPT):
                told = await one_round(evaluator, rule, first + (place + 1) * seconds)
                if told["changed"] != CHANGES[name]:
                    raise RuntimeError(f"{told['changed']} instances changed where {CHANGES[name]} should: {name}")
                rounds[name].append(Round(told["seconds"], told["own"], told["megabytes"]))
                bench.report.say(f"{name:18} {told['seconds']:.2f} s, {told['own']:.2f} s its own")
    finally:
        await connection.close()
    return rounds


async def one_round(evaluator: Child, rule: int, end: int) -> dict[str, Any]:
    evaluator.order(f"{rule} {end}")
    told: dict[str, Any] = await evaluator.hear("judged", ROUND_SECONDS)
    return told
