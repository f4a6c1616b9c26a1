-- prune: forgets runs that were made more than 400 days ago, and notes how far back they are known
-- locks: the rows; the schedules concerned
with gone as (
    delete from pipeline.schedule_run where made_at < pipeline.now() - interval '400 days' returning name, at
),
newest as (
    select g.name, max(g.at) as at from gone as g group by g.name
),
mine as (
    select s.name, n.at from pipeline.schedule as s join newest as n on n.name = s.name order by s.name for no key update of s
)
update pipeline.schedule as s
set forgotten = greatest(s.forgotten, m.at)
from mine as m
where s.name = m.name
