"""What must hold when everything is over.

Owns: the questions, each of them one query that returns what is wrong. Knows no fault.

Who counts as a holder. A job is held by the worker whose lease lists it. A worker that was stopped past its lease
is no holder any more: its lease was deleted by whoever rescued its jobs, and nothing that it still does is taken.
So an interval of a job begins with a record that the lease itself permitted, and ends with the job's own end or
with its lease, whichever comes first; of a job whose worker was killed it ends with the lease alone.
"""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec


class Check(msgspec.Struct, frozen=True):
    """name: of the goal. query: one row for each thing that is wrong, with a text."""

    name: str
    query: str


OUTSIDE = "('chaos.transaction', 'chaos.cancelled', 'chaos.poison', 'chaos.workflow')"

CHECKS = [
    Check(
        "jobs lost",
        "select s.kind || ' ' || s.job from chaos.sent s"
        " where not exists (select from pipeline.job_archive a where a.id = s.job)"
        " and not exists (select from pipeline.job j where j.id = s.job)",
    ),
    Check(
        "jobs of transactions that never committed",
        "select a.task || ' ' || a.id from pipeline.job_archive a"
        " where not exists (select from chaos.sent s where s.job = a.id)",
    ),
    Check("jobs stuck", "select j.task || ' ' || j.id || ' attempt ' || j.attempt from pipeline.job j"),
    Check(
        "jobs archived twice",
        "select a.id || ' ' || count(*) from pipeline.job_archive a group by a.id having count(*) > 1",
    ),
    Check(
        "effects in job.transaction() that did not happen exactly once",
        "select a.id || ' ' || a.state from pipeline.job_archive a"
        " left join (select job, count(*) as n from chaos.effect_tx group by job) e on e.job = a.id"
        " where a.task = 'chaos.transaction' and coalesce(e.n, 0) <> (a.state = 'finished')::int",
    ),
    Check(
        "finished jobs without their effect",
        "select a.task || ' ' || a.id from pipeline.job_archive a where a.state = 'finished'"
        f" and a.task not in {OUTSIDE} and not exists (select from chaos.effect e where e.job = a.id)",
    ),
    Check(
        "more jobs of a key or queue than its limit, by fenced intervals",
        """
        with span as (
            select s.job, s.at as since, j.name, j.most,
                least(
                    (select min(p.at) from chaos.stop p where p.job = s.job and p.lease = s.lease),
                    (select min(e.at) from chaos.lease_end e where e.lease = s.lease and s.job = any(e.ids))
                ) as until
            from chaos.start s
            join (
                select a.id, coalesce(nullif(a.key, ''), a.queue) as name,
                    case when a.queue = 'five' then 5 when a.key like 'one:%' then 1
                        when a.key like 'two:%' then 2 end as most
                from pipeline.job_archive a
            ) j on j.id = s.job and j.most is not null
        )
        select b.name || ' ' || b.job || ' at ' || b.since
        from span b
        join span o on o.name = b.name and o.since <= b.since and o.until > b.since
        group by b.name, b.job, b.since, b.most having count(*) > b.most
        """,
    ),
    Check(
        "a queue's or a key's rate was exceeded",
        """
        with handed as (
            select case when h.queue = 'rated' then h.queue else h.key end as name, h.at, h.jobs,
                case when h.queue = 'rated' then 5 else 2 end as most
            from chaos.handed h where h.queue = 'rated' or h.key like 'rate:%'
        ), windows as (
            select h.name, h.at, h.most, sum(h.jobs) over (
                partition by h.name order by h.at
                range between interval '999.999 milliseconds' preceding and current row
            ) as n
            from handed h
        )
        select w.name || ' ' || w.n || ' at ' || w.at from windows w where w.n > w.most
        """,
    ),
    Check("unique jobs that were there twice", "select what from chaos.wrong where what like 'two unique%'"),
    Check(
        "workflow jobs that began before what they need had ended, or got other results",
        """
        select b.id || ' began at ' || s.at from pipeline.job_archive b
        join chaos.start s on s.job = b.id
        join pipeline.job_archive a on a.workflow = b.workflow
            and (a.args ->> 'place')::int = (b.args ->> 'place')::int - 1
        where b.task = 'chaos.workflow' and s.at <= a.finished_at
        union all select what from chaos.wrong where what like 'workflow%'
        """,
    ),
    Check(
        "workflows that did not finish, and notes of theirs that are left over",
        "select w.id || ' ' || w.state || ' pending ' || w.pending from pipeline.workflow w"
        " where (w.state, w.pending, w.total) is distinct from ('finished', 0, 5) and w.failed = 0"
        " union all select 'note of job ' || e.job from pipeline.job_ended e",
    ),
    Check(
        "a delayed job began before its time",
        "select s.job::text from chaos.start s join chaos.sent n on n.job = s.job where s.at < n.run_at",
    ),
    Check(
        "saved values that the next attempt did not see",
        "select r.job || ' went on from ' || r.n from chaos.resumed r"
        " where r.n < (select max(s.n) from chaos.step s where s.job = r.job and s.at < r.at)",
    ),
    Check(
        "lines logged under a lease that was gone",
        "select l.job || ' ' || l.message from pipeline.job_log l"
        " join chaos.lease_end e on e.lease = substring(l.message from 'lease (\\d+)')::bigint"
        " where e.cause = 'rescue' and l.at > e.at",
    ),
    Check(
        "starts under a lease that was gone",
        "select s.job || ' ' || s.lease from chaos.start s join chaos.lease_end e on e.lease = s.lease"
        " where s.job = any(e.ids) and s.at > e.at and e.cause = 'rescue'",
    ),
    Check(
        "poison that was not put with the dead letters after three losses",
        "select s.job || ' ' || coalesce(a.state || ' lost ' || a.lost, 'is not there') from chaos.sent s"
        " left join pipeline.job_archive a on a.id = s.job"
        " where s.kind = 'poison' and (a.state, a.lost) is distinct from ('failed', 3::smallint)",
    ),
    Check(
        "neighbours of the poison that did not finish",
        "select a.id || ' ' || a.state from pipeline.job_archive a"
        " where a.task = 'chaos.neighbour' and a.state <> 'finished'",
    ),
    Check(
        "cancelled jobs that ended otherwise",
        "select a.id || ' ' || a.state || ' ' || coalesce(a.error, '') from pipeline.job_archive a"
        " where a.task = 'chaos.cancelled' and a.state <> 'cancelled' and a.lost < 3",
    ),
    Check(
        "jobs that failed without a reason",
        # After its first loss a job runs alone, and each further one counts only with a note that it had begun.
        "select a.task || ' ' || a.id || ' ' || coalesce(a.error, '') from pipeline.job_archive a"
        " where a.state = 'failed' and not (a.lost = 3 and 2 <= ("
        "     select count(*) from chaos.lease_end e where e.cause = 'rescue' and a.id = any(e.started)))",
    ),
    Check(
        "jobs that ended as nothing that they can",
        "select a.task || ' ' || a.id || ' ' || a.state from pipeline.job_archive a"
        " where a.state not in ('finished', 'failed')"
        " and (a.task, a.state) not in (('chaos.cancelled', 'cancelled'), ('chaos.expiring', 'expired'))",
    ),
    Check("leases left over", "select l.id || ' ' || l.queue || ' ' || l.ids::text from pipeline.lease l"),
    Check(
        "states of lanes left over",
        "select s.queue || ' ' || s.key || ' ' || count(*) from pipeline.lane_state s"
        " group by s.queue, s.priority, s.key having count(*) > 1"
        " union all select l.queue || ' ' || l.key from pipeline.lane l where not exists (select from"
        " pipeline.lane_state s where s.queue = l.queue and s.priority = l.priority and s.key = l.key)",
    ),
    Check(
        "lanes and limiters that a cleanup leaves",
        "select 'lane ' || l.key from pipeline.lane l where l.key <> ''"
        " union all select 'limiter ' || m.name from pipeline.limiter m"
        " union all select 'unique ' || u.key from pipeline.job_unique u",
    ),
]

REPEATS = """
select cause, count(*) as times, count(*) filter (where burned) as burned, count(*) filter (where lost) as lost
from (
    select a.burned, a.lost, case
        when a.cause <> 'retry' then a.cause
        when a.error like '%not in attempt%' then 'retry that the task asked for'
        when not a.burned then 'snooze'
        else 'retry after a fault'
    end as cause
    from chaos.again a where a.cause <> 'promote'
) c
group by cause order by cause
"""
ERRORS = """
select j.task || ': ' || left(a.error, 90) as error, count(*) as n from chaos.again a
join pipeline.job_archive j on j.id = a.job
where a.cause = 'retry' and a.burned and a.error not like '%not in attempt%' group by 1 order by 2 desc limit 5
"""
STATES = "select a.task, a.state, count(*) as n from pipeline.job_archive a group by 1, 2 order by 1, 2"
RESCUED = """
select w.name, e.worker, extract(epoch from min(e.at))::float8 as at, sum(cardinality(e.ids))::int as jobs
from chaos.lease_end e left join chaos.worker w on w.id = e.worker
where e.cause = 'rescue' group by w.name, e.worker, date_trunc('second', e.at)
"""


async def wrong(connection: asyncpg.Connection[Any], check: Check) -> tuple[int, str]:
    """How much is wrong, and the first few things."""
    rows = await connection.fetch(check.query)
    return len(rows), "; ".join(str(row[0]) for row in rows[:3])
