-- next_in: seconds until a daemon has to look at a schedule, at most 0 when one is due; null when there is none
-- $1 float8: seconds after which a schedule that no daemon has in its code any more is stale
-- locks: none
select extract(epoch from min(coalesce(s.next_at, s.until)) - pipeline.now())::float8
from pipeline.schedule as s
where not s.paused and (s.source = 'sql' or s.seen_at > pipeline.now() - make_interval(secs => $1))
