-- lock_due: a schedule that is due and that nobody else deals with, and what time it is
-- $1 float8: seconds after which a schedule that no daemon has in its code any more is stale
-- $2 text[]: names to pass over
-- locks: the row, NO KEY UPDATE; rows that are locked are passed over
select
    s.name, s.cron, s.timezone, s.missed, s.max_missed,
    extract(epoch from s.until)::float8 as until, extract(epoch from pipeline.now())::float8 as now
from pipeline.schedule as s
where not s.paused
  and (s.source = 'sql' or s.seen_at > pipeline.now() - make_interval(secs => $1))
  and coalesce(s.next_at, s.until) <= pipeline.now()
  and s.name <> all ($2)
order by coalesce(s.next_at, s.until)
limit 1
for no key update skip locked
