-- unsettled: the lanes of a queue below whose mark a job may be that nobody holds
-- $1 text: queue   $2 float8: seconds that must have passed since the last sweep   $3 float8: since the last full search
-- `due` tells whether it is time; `whole` asks for a search of everything below the mark, a guard against lost leases
-- locks: none
select
    l.priority,
    l.swept_at <= t.now - make_interval(secs => $2) as due,
    l.searched_at <= t.now - make_interval(secs => $3) as whole
from pipeline.lane l, (select pipeline.now() as now) t
where l.queue = $1 and (l.settled < l.mark or l.searched_at <= t.now - make_interval(secs => $3))
order by l.priority
