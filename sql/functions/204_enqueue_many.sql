-- enqueue_many: adds a job for each of args, all of one task, and wakes the workers once; returns the ids in that order
--
-- keys: the key of each; what is null comes from the task. Options as of enqueue; a task that is unique is added one by one.
-- locks: as enqueue
create or replace function pipeline.enqueue_many(
    task text,
    args jsonb[],
    queue text default null,
    priority int default null,
    run_at timestamptz default null,
    max_attempts int default null,
    timeout interval default null,
    expires_at timestamptz default null,
    keys text[] default null
) returns bigint[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    v_bad jsonb;
begin
    if exists (select from pipeline.task t where t.name = task and t.unique_by is not null) then
        return array(
            select pipeline.enqueue(task, a.args, queue, priority, run_at, max_attempts, timeout, a.key, expires_at)
            from unnest(args, keys) with ordinality a (args, key, i) where a.i <= cardinality(args) order by a.i
        );
    end if;
    select a into v_bad from unnest(args) a
    where coalesce(jsonb_typeof(a) <> 'object', true)
        or pg_column_size(a) > 4096 and octet_length(a::text) > pipeline.most_bytes()
    limit 1;
    if found then
        perform pipeline.refuse_job(task, v_bad, queue, priority, max_attempts, timeout, '');
    end if;
    return pipeline.add_jobs(task, args, queue, priority, run_at, max_attempts, timeout, expires_at, keys);
end
$$;

-- add_jobs: what enqueue_many does for a task that is not unique, and a trigger for every task, because it must not wait
--
-- The caller has looked at args: objects, none too large.
create or replace function pipeline.add_jobs(
    task text, args jsonb[], queue text, priority int, run_at timestamptz, max_attempts int, timeout interval,
    expires_at timestamptz, keys text[]
) returns bigint[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    v_now timestamptz := pipeline.now();
    v_known pipeline.task;
    v_ids bigint[];
begin
    select * into v_known from pipeline.task t where t.name = task;
    queue := coalesce(queue, v_known.queue, 'default');
    priority := coalesce(priority, v_known.priority, 0);
    max_attempts := coalesce(max_attempts, v_known.max_attempts, 5);
    timeout := coalesce(timeout, v_known.timeout);
    expires_at := coalesce(expires_at, greatest(run_at, v_now) + v_known.expires);
    if coalesce(length(task) > 500 or length(queue) > 200 or task = '' or queue = '' or priority not between -32768 and 32767 or max_attempts < 1 or timeout <= '0', true) then
        perform pipeline.refuse_job(task, '{}', queue, priority, max_attempts, timeout, '');
    end if;

    if keys is not null or v_known.key is not null then
        perform pipeline.refuse_job(task, '{}', queue, priority, max_attempts, timeout, k.key)
        from (
            select coalesce(a.key, pipeline.render_key(v_known.key, a.args)) as key from unnest(args, keys) a (args, key)
        ) k
        where length(k.key) > 200;
    end if;

    perform pg_current_xact_id(); -- before a position is drawn
    with given as materialized (
        select a.args, a.i,
            coalesce(a.key, case when v_known.key is not null then pipeline.render_key(v_known.key, a.args) end, '') as key
        from unnest(args, keys) with ordinality a (args, key, i)
        where a.i <= cardinality(add_jobs.args)
    ), made as (
        insert into pipeline.job (
            task, args, queue, priority, pos, run_at, created_at, max_attempts, timeout, key, expires_at
        )
        select
            task, g.args, queue, priority, case when run_at > v_now then null else nextval('pipeline.job_pos') end,
            greatest(run_at, v_now), v_now, max_attempts, timeout, g.key, expires_at
        from given g order by g.i
        returning id
    ), asked as (
        insert into pipeline.lane_request (queue, priority, key)
        select queue, priority, g.key from (select distinct g.key from given g) g
        where not exists (
            select from pipeline.lane l where l.queue = queue and l.priority = priority::smallint and l.key = g.key
        )
    )
    select array_agg(m.id order by m.id) into v_ids from made m;
    if v_ids is not null and (run_at <= v_now) is not false then
        perform pipeline.ring_workers(queue);
    end if;
    return coalesce(v_ids, '{}');
end
$$;
revoke execute on function pipeline.add_jobs from public;
