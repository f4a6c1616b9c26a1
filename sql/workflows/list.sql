-- list: the newest workflows, newest first
-- $1 text: only those in this state, or null   $2 bigint: how many at most
-- locks: none
select
    w.id, w.name, w.state, w.total, w.pending, w.failed, extract(epoch from w.created_at)::float8 as created_at,
    extract(epoch from w.finished_at)::float8 as finished_at
from pipeline.workflow w
where $1::text is null or w.state = $1
order by w.id desc
limit $2
