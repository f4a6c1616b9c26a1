"""A storm of alerts that SQL raises: what writers lose, whether the state is right, and how often is told.

Owns: the storm. Writers are pgbench's, each write a transaction; the daemon runs throughout.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import asyncpg

from bench.alerts_kit import Ear, daemon, webhook
from bench.jobs_kit import Bench, amount, fetchval
from bench.report import ratio

WRITERS = 8
STORM_SECONDS = amount(10, 2)
ROUNDS = amount(5, 1)
STORM = amount(100_000, 20_000)
KEEP = "writers whose trigger raises an alert/without, 100,000 alerts in 10 s"
EVERY = "writers whose every write raises an alert/without"
SIZE = "alerts raised in the smallest storm"
WRONG = "instances whose state is wrong at the end"
TOLD = "notifications of 1,000 instances of 40 alerts"
GOALS = {
    KEEP: (">=", 0.8), SIZE: (">=", float(STORM)), WRONG: ("<=", 0.0), TOLD: ("<=", 40.0),
}  # fmt: skip
DRAIN_SECONDS = 120.0
TABLES = ("plain", "fifth", "raising", "twin")

WRITE = """
\\set account random(1, 1000)
insert into bench_{} (account, note) values (:account, 'a note of some length');
"""
SAY = """
\\set account :client_id * 1000 + random(1, 125)
\\set name :account % 40
\\set raised random(0, 1)
begin;
insert into bench_said (name, account, raised) values ('mixed ' || :name::int, :account::int, :raised::int = 1);
\\if :raised
select pipeline.raise_alert('mixed ' || :name::int, 'bad', labels => jsonb_build_object('account', :account::int));
\\else
select pipeline.resolve_alert('mixed ' || :name::int, labels => jsonb_build_object('account', :account::int));
\\endif
commit;
"""
# A client has its own accounts, so that the order of what it said is the order in which it committed.
WRONG_STATES = """
    with said as (
        select distinct on (name, account) name, account, raised from bench_said order by name, account, id desc
    ),
    held as (
        select rule, labels ->> 'account' as account, state = 'firing' as firing from pipeline.alert_state
    ),
    expected as (
        select name as rule, account::text as account, raised as firing from said
        union all select distinct 'storm', account::text, true from bench_fifth where id % 5 = 0
        union all select distinct 'every write', account::text, true from bench_raising
    )
    select count(*) from expected full join held using (rule, account)
    where coalesce(expected.firing, false) <> coalesce(held.firing, false)
"""
TWICE = """
    select count(*) from (
        select from pipeline.alert_history where after = 'firing' and rule in ('storm', 'every write')
        group by rule, instance having count(*) > 1
    ) as twice
"""


async def measure(bench: Bench) -> None:
    report = bench.report
    async with bench.database("storm") as dsn, webhook() as ear, daemon(dsn, ear):
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(Path(__file__).with_name("alerts.sql").read_text())
            rates: dict[str, list[float]] = {table: [] for table in TABLES}
            counts: list[int] = []
            drains: list[float] = []
            for _round in range(ROUNDS):
                for table in TABLES:
                    before = await connection.fetchval("select count(*) from bench_fifth where id % 5 = 0")
                    rate = await write(bench, dsn, WRITE.format(table))
                    rates[table].append(rate)
                    if table == "fifth":
                        after = await connection.fetchval("select count(*) from bench_fifth where id % 5 = 0")
                        counts.append(after - before)
                    drains.append(await drained(connection))
                    report.say(f"{table:8} {rate:8,.0f} writes/s; all was taken in {drains[-1]:.1f} s later")
            for table in TABLES:
                report.figure(f"{table}, writes/s", statistics.median(rates[table]))
            detail = f"median of {ROUNDS} rounds of {STORM_SECONDS} s, {WRITERS} writers, a daemon takes in"
            report.goal(KEEP, ratio(rates["fifth"], rates["plain"]), *GOALS[KEEP], f"one write in five; {detail}")
            report.goal(SIZE, min(counts), *GOALS[SIZE], f"in {STORM_SECONDS} s")
            report.figure(EVERY, ratio(rates["raising"], rates["plain"]))
            report.figure(f"{EVERY[:-8]}/whose trigger inserts a row", ratio(rates["raising"], rates["twin"]))
            report.figure("a storm is taken in so long after its end, worst, s", max(drains))
            await settle_up(bench, dsn, connection, ear)
        finally:
            await connection.close()


async def write(bench: Bench, dsn: str, script: str) -> float:
    return await asyncio.to_thread(bench.pgbench, dsn, script, clients=WRITERS, seconds=STORM_SECONDS)


async def drained(connection: asyncpg.Connection) -> float:
    """Seconds until the inbox is empty."""
    began = time.perf_counter()
    while await connection.fetchval("select exists (select from pipeline.alert_inbox)"):
        if time.perf_counter() - began > DRAIN_SECONDS:
            raise RuntimeError("the inbox did not become empty")
        await asyncio.sleep(0.05)
    return time.perf_counter() - began


async def settle_up(bench: Bench, dsn: str, connection: asyncpg.Connection, ear: Ear) -> None:
    """A storm of raised and resolved alerts; then the state of each instance, and what was told."""
    report = bench.report
    before = len(ear.got)
    rate = await write(bench, dsn, SAY)
    await drained(connection)
    report.figure("raised and resolved, transactions/s", rate)
    wrong = await connection.fetchval(WRONG_STATES) + await connection.fetchval(TWICE)
    wrong += await fetchval(dsn, "select coalesce(pg_sequence_last_value('pipeline.alert_losses'), 0)")
    instances = await connection.fetchval("select count(*) from pipeline.alert_state")
    report.goal(WRONG, wrong, *GOALS[WRONG], f"of {instances:,}; each that only fired did so once; none was lost")
    await asyncio.sleep(5)
    report.goal(TOLD, len(ear.got) - before, *GOALS[TOLD], f"of {rate * STORM_SECONDS:,.0f} messages")
