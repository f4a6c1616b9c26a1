-- cancel_jobs: ends jobs that have not ended, also those that run; returns the ids of those that it ended
--
-- A job that runs is told to stop; whatever it still does is not taken any more: its worker can neither finish nor fail it,
-- and its own transaction cannot commit.
-- locks: the jobs; a worker that is writing one of them down comes first
create or replace function pipeline.cancel_jobs(ids bigint[], reason text default null) returns bigint[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_ended bigint[] := pipeline.end_jobs(ids, 'cancelled', coalesce('cancelled: ' || reason, 'cancelled'));
begin
    for v_from in 1 .. cardinality(v_ended) by 300 loop
        perform pipeline.emit('pipeline.job_cancelled', array_to_string(v_ended[v_from : v_from + 299], ','));
    end loop;
    return v_ended;
end
$$;
revoke execute on function pipeline.cancel_jobs from public;

-- end_jobs: moves jobs to the archive, whoever holds them; returns their ids
create or replace function pipeline.end_jobs(p_ids bigint[], p_state text, p_error text) returns bigint[]
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    with named as materialized (
        select j.id from pipeline.job j where j.id = any(p_ids) order by j.id for update
    ), gone as (
        delete from pipeline.job j using named n where j.id = n.id returning j.*
    ), archived as (
        insert into pipeline.job_archive (
            id, queue, priority, task, args, state, attempt, max_attempts, created_at, run_at, expires_at, timeout,
            key, lost, workflow, finished_at, error
        )
        select
            g.id, g.queue, g.priority, g.task, g.args, p_state, g.attempt, g.max_attempts, g.created_at, g.run_at,
            g.expires_at, g.timeout, g.key, g.lost, g.workflow, (select pipeline.now()), p_error
        from gone g
        returning id
    )
    select coalesce(array_agg(a.id), '{}') from archived a
$$;
revoke execute on function pipeline.end_jobs from public;

-- expire_jobs: ends jobs that have not begun in time; returns how many
--
-- Those that wait for a time or for others are ended where they are. Those in line are ended under their lane's lock: the
-- lock in one statement and the look at the leases in the next, so that none is ended that a claim has just handed out.
-- locks: the jobs, SKIP LOCKED; the lanes, SKIP LOCKED
-- index: job_expiring
create or replace function pipeline.expire_jobs(p_limit int default 1000) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now constant timestamptz := pipeline.now();
    v_ids bigint[];
    v_count bigint;
    v_lane record;
begin
    v_ids := array(
        select j.id from pipeline.job j
        where j.expires_at <= v_now and j.pos is null order by j.expires_at limit p_limit for update skip locked
    );
    v_count := cardinality(pipeline.end_jobs(v_ids, 'expired', 'expired before it began'));
    for v_lane in
        select j.queue, j.priority, j.key, array_agg(j.id) as ids
        from (
            select * from pipeline.job j
            where j.expires_at <= v_now and j.pos is not null order by j.expires_at limit p_limit
        ) j
        group by j.queue, j.priority, j.key
    loop
        perform from pipeline.lane l
        where l.queue = v_lane.queue and l.priority = v_lane.priority and l.key = v_lane.key
        for update skip locked;
        continue when not found;
        v_ids := array(
            select j.id from pipeline.job j
            where j.id = any(v_lane.ids) and j.expires_at <= v_now and j.id not in (
                select unnest(e.ids) from pipeline.lease e
                where e.queue = v_lane.queue and e.priority = v_lane.priority and e.key = v_lane.key
            )
        );
        v_count := v_count + cardinality(pipeline.end_jobs(v_ids, 'expired', 'expired before it began'));
    end loop;
    return v_count;
end
$$;
revoke execute on function pipeline.expire_jobs from public;

-- retry_jobs: lets jobs run again: dead letters and whatever else has ended but not finished, and delayed ones at once
--
-- A job keeps its id; its attempts begin anew. Returns the ids of those that it let run.
-- locks, each in the order of their ids: the workflows; the leases that still list one; the jobs' rows in the archive; the
-- delayed jobs
create or replace function pipeline.retry_jobs(ids bigint[]) returns bigint[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now constant timestamptz := pipeline.now();
    v_these bigint[];
    v_back bigint[];
    v_leases bigint[];
    v_lane record;
begin
    perform pg_current_xact_id(); -- before a position is drawn
    perform pipeline.lock_workflows(ids); -- before the jobs, as a resolver does
    -- Before the jobs, too, as a worker does that writes. Those that come to list one meanwhile are few, and locked below. A
    -- subquery without `exists` is hashed; `&&` and `= any` would compare each id with each.
    v_these := array(
        select a.id from pipeline.job_archive a where a.id = any(ids) and a.state <> 'finished'
        union all
        select j.id from pipeline.job j where j.id = any(ids) and j.pos is null and j.needs = 0
    );
    perform from pipeline.lease e
    where (select bool_or(i in (select t from unnest(v_these) t)) from unnest(e.ids) i)
    order by e.id for no key update;
    perform from pipeline.job_archive a where a.id = any(ids) and a.state <> 'finished' order by a.id for update;
    perform from pipeline.job j where j.id = any(ids) and j.pos is null and j.needs = 0 order by j.id for update;
    with ended as (
        delete from pipeline.job_archive a
        where a.id = any(ids) and a.state <> 'finished'
        returning a.*
    ), again as (
        insert into pipeline.job (
            id, task, args, queue, priority, key, workflow, run_at, created_at, max_attempts, timeout, error
        )
        overriding system value
        select
            e.id, e.task, e.args, e.queue, e.priority, e.key, e.workflow, v_now, e.created_at, e.max_attempts, e.timeout,
            e.error
        from ended e
        returning id
    ), sooner as (
        update pipeline.job j set run_at = v_now, pos = nextval('pipeline.job_pos')
        where j.id = any(ids) and j.pos is null and j.needs = 0
        returning id
    )
    select array(select id from again union all select id from sooner) into v_back;
    -- Whoever held one of them before holds it no more: a lease lists also what has ended, until all of it has.
    v_leases := array(
        select e.id from pipeline.lease e
        where (select bool_or(i in (select b from unnest(v_back) b)) from unnest(e.ids) i)
        order by e.id for no key update
    );
    update pipeline.lease e
    set ids = array(select i from unnest(e.ids) i where i not in (select b from unnest(v_back) b))
    where e.id = any(v_leases);
    perform pipeline.rejoin_workflow(v_back);
    for v_lane in
        select distinct j.queue, j.priority, j.key from pipeline.job j where j.id = any(v_back)
    loop
        perform pipeline.request_lane(v_lane.queue, v_lane.priority, v_lane.key), pipeline.wake_workers(v_lane.queue);
    end loop;
    return v_back;
end
$$;
revoke execute on function pipeline.retry_jobs from public;
