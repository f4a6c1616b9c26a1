-- look: jobs below the mark of a lane that are in no lease, and the oldest transaction still running at that moment
-- $1 text: queue   $2 smallint: priority   $3 bool: everything below the mark, not only what is unsettled
-- $4 bigint: how many at most
-- locks: none, so a long look delays no claim; what it finds is only a hint, because a claim may be under way
-- index: job_ready
select
    array(
        select j.id
        from pipeline.job j
        where j.queue = $1 and j.priority = $2 and j.pos <= l.mark
            and j.pos > case when $3 then 0 else l.settled end
            -- a hashed set: probing arrays row by row would be quadratic
            and j.id not in (select unnest(e.ids) from pipeline.lease e where e.queue = $1 and e.priority = $2)
        order by j.pos
        limit $4
    ) as ids,
    pg_snapshot_xmin(pg_current_snapshot())::text as oldest
from pipeline.lane l
where l.queue = $1 and l.priority = $2
