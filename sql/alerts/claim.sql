-- claim: takes what a sink has to be told now; the rest of an instance waits until its earlier notice is delivered
-- $1 text: the sink
-- $2 float8: how long the caller has for it before it is tried anew, in seconds
-- $3 bigint: how many at most
-- locks: the rows, SKIP LOCKED, so that two evaluators never send the same notice
with open as (
    select d.notice
    from pipeline.alert_delivery as d
    join pipeline.alert_notice as n on n.id = d.notice
    where d.sink = $1
      and d.delivered_at is null
      and d.next_try_at <= pipeline.now()
      and not exists (
          select
          from pipeline.alert_delivery as e
          join pipeline.alert_notice as m on m.id = e.notice
          where e.sink = $1 and e.delivered_at is null and m.kind = n.kind and m.rule = n.rule
            and m.instance = n.instance and m.place < n.place
      )
    order by n.place
    limit $3
    for update of d skip locked
)
update pipeline.alert_delivery as d
set attempts = d.attempts + 1, next_try_at = pipeline.now() + make_interval(secs => $2)
from open
join pipeline.alert_notice as n on n.id = open.notice
where d.notice = open.notice and d.sink = $1
returning n.id::text as id, d.attempts, n.change, n.rule, n.instance, n.severity, n.message, n.value, n.threshold, n.episode,
    extract(epoch from n.at)::float8 as at, n.labels, n.runbook, n.place
