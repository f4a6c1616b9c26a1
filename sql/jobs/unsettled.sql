-- unsettled: whether a queue has lanes below whose mark a job may be that nobody holds, and whether it is time to look
-- $1 text: queue   $2 float8: seconds that must have passed since the last sweep   $3 float8: since the last full search
-- locks: none
select
    count(*) > 0 as unsettled,
    coalesce(bool_or(
        s.swept_at <= t.now - make_interval(secs => $2) or s.searched_at <= t.now - make_interval(secs => $3)
    ), false) as due
from pipeline.lane l
cross join (select pipeline.now() as now) t
cross join lateral (
    select * from pipeline.lane_state s
    where s.queue = l.queue and s.priority = l.priority and s.key = l.key
    order by s.n desc limit 1
) s
where l.queue = $1 and l.last_pos is distinct from 0
    and (s.settled < s.mark or s.searched_at <= t.now - make_interval(secs => $3))
