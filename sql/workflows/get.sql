-- get: one workflow
-- $1 bigint: workflow
-- locks: none
select
    w.id, w.name, w.state, w.total, w.pending, w.failed, extract(epoch from w.created_at)::float8 as created_at,
    extract(epoch from w.finished_at)::float8 as finished_at
from pipeline.workflow w
where w.id = $1
