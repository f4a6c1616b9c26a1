-- workers: the processes that run jobs, with what each holds; those seen last first
-- $1 float8: seconds without a heartbeat after which others take a worker's jobs
-- locks: none
select
    w.id, w.name, w.queues, w.seen_at > pipeline.now() - make_interval(secs => $1) as alive,
    extract(epoch from w.started_at)::float8 as started_at,
    extract(epoch from pipeline.now() - w.seen_at)::float8 as seen_ago,
    coalesce(h.leases, 0) as leases, coalesce(h.jobs, 0) as jobs
from pipeline.worker w
left join (
    select l.worker, count(*) as leases,
        sum((select count(*) from unnest(l.ids) i (id) join pipeline.job j on j.id = i.id))::bigint as jobs
    from pipeline.lease l group by l.worker
) h on h.worker = w.id
order by alive desc, w.name, w.id
