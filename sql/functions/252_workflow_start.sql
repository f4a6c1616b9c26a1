-- start_workflow: adds jobs of which some wait for others, all or none; returns the workflow's id
--
-- jobs: an array of objects. Each has a task and may have: name (by default the task's; no two are the same), args, after
-- (the names of the jobs it needs), on_failure (what becomes of it when one of those does not finish: "cancel" ends it too,
-- "ignore" runs it all the same, "hold" lets it wait until that one was retried and has finished), queue, priority, run_at,
-- max_attempts, timeout (seconds), key, expires_at; what is left out comes from the task, as in enqueue. A task that is
-- declared unique is not so here. on_failure: for jobs that do not say it themselves.
-- locks: none that anyone waits for
create or replace function pipeline.start_workflow(name text, jobs jsonb, on_failure text default 'cancel') returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now constant timestamptz := pipeline.now();
    v_names text[];
    v_needs int[];
    v_edge_job int[];
    v_edge_need int[];
    v_edge_policy text[];
    v_ids bigint[];
    v_flow bigint;
    v_queue text;
begin
    perform pipeline.check_workflow(name, jobs, on_failure);
    select array_agg(coalesce(j.one ->> 'name', j.one ->> 'task') order by j.i) into v_names
    from jsonb_array_elements(jobs) with ordinality j (one, i);
    select
        coalesce(array_agg(e.job order by e.job, e.need), '{}'), coalesce(array_agg(e.need order by e.job, e.need), '{}'),
        coalesce(array_agg(e.policy order by e.job, e.need), '{}')
    into v_edge_job, v_edge_need, v_edge_policy
    from pipeline.workflow_edges(jobs, v_names, on_failure) e;
    perform pipeline.refuse_cycle(v_names, v_edge_job, v_edge_need);

    perform pipeline.refuse_job(k.task, '{}', null, null, null, null, k.key)
    from (
        select t.name as task, pipeline.render_key(t.key, coalesce(j.one -> 'args', '{}')) as key
        from jsonb_array_elements(jobs) j (one)
        join pipeline.task t on t.name = j.one ->> 'task' and t.key is not null
        where j.one ->> 'key' is null
    ) k
    where length(k.key) > 200;
    perform pg_current_xact_id(); -- before a position is drawn
    insert into pipeline.workflow (name, on_failure, total, pending, created_at)
    values (start_workflow.name, start_workflow.on_failure, cardinality(v_names), cardinality(v_names), v_now)
    returning workflow.id into v_flow;
    select array_agg(coalesce(n.count, 0) order by i) into v_needs
    from generate_series(1, cardinality(v_names)) i
    left join (select e.job, count(*)::int from unnest(v_edge_job) e (job) group by e.job) n on n.job = i;

    with given as materialized (
        select
            j.i, j.one ->> 'task' as task, coalesce(j.one -> 'args', '{}') as args, v_needs[j.i] as needs,
            coalesce(j.one ->> 'queue', t.queue, 'default') as queue,
            coalesce((j.one ->> 'priority')::int, t.priority, 0) as priority,
            coalesce((j.one ->> 'max_attempts')::int, t.max_attempts, 5) as max_attempts,
            coalesce(make_interval(secs => (j.one ->> 'timeout')::float8), t.timeout) as timeout,
            coalesce(j.one ->> 'key', pipeline.render_key(t.key, coalesce(j.one -> 'args', '{}')), '') as key,
            greatest((j.one ->> 'run_at')::timestamptz, v_now) as run_at,
            -- where the task says how long a job may wait, that begins when the job may run
            coalesce(
                (j.one ->> 'expires_at')::timestamptz,
                case when v_needs[j.i] = 0 then greatest((j.one ->> 'run_at')::timestamptz, v_now) + t.expires end
            ) as expires_at
        from jsonb_array_elements(jobs) with ordinality j (one, i)
        left join pipeline.task t on t.name = j.one ->> 'task'
    ), made as (
        insert into pipeline.job (
            task, args, queue, priority, pos, run_at, created_at, max_attempts, timeout, key, expires_at, needs, workflow
        )
        select
            g.task, g.args, g.queue, g.priority,
            case when g.needs = 0 and g.run_at <= v_now then nextval('pipeline.job_pos') end,
            g.run_at, v_now, g.max_attempts, g.timeout, g.key, g.expires_at, g.needs, v_flow
        from given g order by g.i
        returning id
    ), asked as (
        insert into pipeline.lane_request (queue, priority, key)
        select l.queue, l.priority, l.key from (select distinct g.queue, g.priority::smallint, g.key from given g) l
        where not exists (
            select from pipeline.lane k where k.queue = l.queue and k.priority = l.priority and k.key = l.key
        )
    )
    select array_agg(m.id order by m.id) into v_ids from made m;

    insert into pipeline.workflow_job (id, workflow, name, task, dependents)
    select v_ids[j.i], v_flow, v_names[j.i], j.one ->> 'task', coalesce(d.count, 0)
    from jsonb_array_elements(jobs) with ordinality j (one, i)
    left join (select e.need, count(*)::int from unnest(v_edge_need) e (need) group by e.need) d on d.need = j.i
    order by j.i;
    insert into pipeline.job_need (needed, job, policy)
    select v_ids[e.need], v_ids[e.job], e.policy
    from unnest(v_edge_job, v_edge_need, v_edge_policy) e (job, need, policy)
    order by 1, 2;
    for v_queue in
        select distinct coalesce(j.one ->> 'queue', t.queue, 'default')
        from jsonb_array_elements(jobs) with ordinality j (one, i)
        left join pipeline.task t on t.name = j.one ->> 'task'
        where v_needs[j.i] = 0
    loop
        perform pipeline.ring_workers(v_queue);
    end loop;
    return v_flow;
end
$$;

-- check_workflow: refuses what is not a list of jobs, one by one
create or replace function pipeline.check_workflow(p_name text, p_jobs jsonb, p_on_failure text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    c_known constant text[] := '{name,task,args,after,on_failure,queue,priority,run_at,max_attempts,timeout,key,expires_at}';
    v_job record;
    v_text text;
begin
    if coalesce(p_name, '') = '' or length(p_name) > 200 then
        raise exception 'a workflow needs a name of 1 to 200 characters' using errcode = 'invalid_parameter_value';
    elsif coalesce(jsonb_typeof(p_jobs) <> 'array', true) then
        raise exception 'the jobs of a workflow are a JSON array of objects' using errcode = 'invalid_parameter_value';
    elsif jsonb_array_length(p_jobs) not between 1 and 100000 then
        raise exception 'workflow % has % jobs; it may have 1 to 100,000', p_name, jsonb_array_length(p_jobs)
            using errcode = 'invalid_parameter_value', hint = 'Start several, the next one from the last job of the one before.';
    elsif coalesce(p_on_failure not in ('cancel', 'ignore', 'hold'), true) then
        raise exception 'on_failure is cancel, ignore or hold, not %', coalesce(p_on_failure, 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    for v_job in
        select j.i, j.one
        from jsonb_array_elements(p_jobs) with ordinality j (one, i)
        where jsonb_typeof(j.one) <> 'object' or not coalesce(
            j.one - c_known = '{}' and length(j.one ->> 'task') between 1 and 500 and j.one ->> 'name' is distinct from ''
            and jsonb_typeof(coalesce(j.one -> 'args', '{}')) = 'object' and length(coalesce(j.one ->> 'queue', 'default')) between 1 and 200
            and (pg_column_size(j.one -> 'args') <= 4096 or octet_length((j.one -> 'args')::text) <= pipeline.most_bytes()) is not false
            and coalesce((j.one ->> 'priority')::numeric, 0) between -32768 and 32767
            and coalesce((j.one ->> 'max_attempts')::numeric, 1) between 1 and 2147483647
            and coalesce((j.one ->> 'timeout')::float8, 1) > 0
            and length(coalesce(j.one ->> 'key', '')) <= 200
            and jsonb_typeof(coalesce(j.one -> 'after', '[]')) = 'array'
            and coalesce(j.one ->> 'on_failure', 'hold') in ('cancel', 'ignore', 'hold'), false
        )
        order by j.i limit 1
    loop
        if jsonb_typeof(v_job.one) <> 'object' then
            raise exception 'job number % of workflow % is no object', v_job.i, p_name using errcode = 'invalid_parameter_value';
        end if;
        select k into v_text from jsonb_object_keys(v_job.one) k where k <> all(c_known) limit 1;
        if v_text is not null then
            raise exception 'job number % of workflow % has the field "%", which is not known', v_job.i, p_name, v_text
                using errcode = 'invalid_parameter_value', hint = 'Known are ' || array_to_string(c_known, ', ') || '.';
        end if;
        perform pipeline.refuse_job(
            v_job.one ->> 'task', coalesce(v_job.one -> 'args', '{}'), v_job.one ->> 'queue',
            (v_job.one ->> 'priority')::int, (v_job.one ->> 'max_attempts')::int, null, v_job.one ->> 'key'
        );
        raise exception 'job number % of workflow % has a name, timeout, after or on_failure that cannot be meant', v_job.i, p_name
            using errcode = 'invalid_parameter_value',
            hint = 'A name is not empty, timeout is seconds above 0, after a list of names, on_failure cancel, ignore or hold.';
    end loop;
    select coalesce(j ->> 'name', j ->> 'task') into v_text
    from jsonb_array_elements(p_jobs) j group by 1 having count(*) > 1 limit 1;
    if v_text is not null then
        raise exception 'two jobs of workflow % are named %', p_name, v_text using errcode = 'invalid_parameter_value',
            hint = 'Give each job a name of its own; without one it is named as its task.';
    end if;
end
$$;
revoke execute on function pipeline.check_workflow(text, jsonb, text) from public;

-- workflow_edges: which job of the array needs which, by their numbers from 1
create or replace function pipeline.workflow_edges(p_jobs jsonb, p_names text[], p_on_failure text)
returns table (job int, need int, policy text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_job text;
    v_need text;
    v_count bigint;
begin
    return query
    select distinct e.job, n.i::int, e.policy
    from (
        select j.i::int as job, a.name, coalesce(j.one ->> 'on_failure', p_on_failure) as policy
        from jsonb_array_elements(p_jobs) with ordinality j (one, i)
        cross join lateral jsonb_array_elements_text(coalesce(j.one -> 'after', '[]')) a (name)
    ) e
    left join unnest(p_names) with ordinality n (name, i) on n.name = e.name;
    get diagnostics v_count = row_count;
    if v_count > 1000000 then
        raise exception 'a workflow may have 1,000,000 needs, not %', v_count using errcode = 'invalid_parameter_value',
            hint = 'Put a job between many and many: it needs the first ones, and the others need only it.';
    end if;
    select p_names[j.i], a.name into v_job, v_need
    from jsonb_array_elements(p_jobs) with ordinality j (one, i)
    cross join lateral jsonb_array_elements_text(coalesce(j.one -> 'after', '[]')) a (name)
    where a.name not in (select n from unnest(p_names) n)
    limit 1;
    if v_need is not null then
        raise exception 'job % needs %, which is not in the workflow', v_job, v_need
            using errcode = 'invalid_parameter_value', hint = 'Names are compared exactly.';
    end if;
end
$$;
revoke execute on function pipeline.workflow_edges(jsonb, text[], text) from public;

-- refuse_cycle: names a cycle if there is one; the edges are sorted by job
--
-- Jobs leave in an order in which each comes after all that it needs; what cannot leave needs something that cannot either,
-- so following that leads into a cycle. In steps of arrays: with queries it would take one for each layer.
create or replace function pipeline.refuse_cycle(p_names text[], p_job int[], p_need int[]) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    v_left int[] := array_fill(0, array[cardinality(p_names)]);
    v_first int[] := array_fill(0, array[cardinality(p_names)]);
    v_to int[];
    v_from int[];
    v_free int[] := array_fill(0, array[cardinality(p_names)]);
    v_taken int := 0;
    v_found int := 0;
    v_one int;
    v_edge int;
    v_path int[] := '{}';
begin
    if not exists (select from unnest(p_job, p_need) e (job, need) where e.need >= e.job) then
        return; -- every job comes after what it needs
    end if;
    select array_agg(e.job order by e.need), array_agg(e.need order by e.need) into v_to, v_from
    from unnest(p_job, p_need) e (job, need);
    for v_edge in reverse cardinality(v_to)..1 loop
        v_left[v_to[v_edge]] := v_left[v_to[v_edge]] + 1;
        v_first[v_from[v_edge]] := v_edge;
    end loop;
    for v_one in 1..cardinality(p_names) loop
        if v_left[v_one] = 0 then
            v_found := v_found + 1;
            v_free[v_found] := v_one;
        end if;
    end loop;
    while v_taken < v_found loop
        v_taken := v_taken + 1;
        v_one := v_free[v_taken];
        v_edge := v_first[v_one];
        while v_edge > 0 and v_from[v_edge] = v_one loop
            v_left[v_to[v_edge]] := v_left[v_to[v_edge]] - 1;
            if v_left[v_to[v_edge]] = 0 then
                v_found := v_found + 1;
                v_free[v_found] := v_to[v_edge];
            end if;
            v_edge := v_edge + 1;
        end loop;
    end loop;
    if v_found = cardinality(p_names) then
        return;
    end if;

    v_first := array_fill(0, array[cardinality(p_names)]); -- from now on: of each job that is left, a need that is left
    for v_edge in 1..cardinality(p_job) loop
        if v_left[p_job[v_edge]] > 0 and v_left[p_need[v_edge]] > 0 then
            v_first[p_job[v_edge]] := p_need[v_edge];
            v_one := p_job[v_edge];
        end if;
    end loop;
    while v_first[v_one] > 0 loop
        v_path := v_path || v_one;
        v_edge := v_first[v_one];
        v_first[v_one] := -cardinality(v_path); -- seen, as this step of the path
        v_one := v_edge;
    end loop;
    v_path := v_path[-v_first[v_one]:] || v_one;
    raise exception 'the workflow has a cycle: %', (
            select string_agg(p_names[p.one], ' needs ' order by p.i)
            from unnest(v_path[:20]) with ordinality p (one, i)
        ) || case when cardinality(v_path) > 20 then format(' needs ... (%s jobs)', cardinality(v_path) - 1) else '' end
        using errcode = 'invalid_parameter_value', hint = 'Leave one of these needs out.';
end
$$;
revoke execute on function pipeline.refuse_cycle(text[], int[], int[]) from public;
