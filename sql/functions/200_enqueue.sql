-- enqueue: adds a job and wakes the workers of its queue when the transaction commits; returns the job's id
--
-- task: the name of a registered task. args: an object, the task's named arguments, of 1 MB of text at most. What is null comes from what programs
-- have declared of the task, else: queue "default", priority 0, five attempts. priority: -32768 to 32767, the lower number
-- runs first. run_at: not before this time. max_attempts: how often it may run until it has failed. timeout: how long one
-- run may take. key: whose job it is; jobs of one key share its limits, and keys take turns. expires_at: a job that has not
-- begun by then never will. unique_key, * for all of the args: this job is not added as well while another one of that key is in one of
-- unique_states (blocked, delayed, ready, running; and for unique_for after it was added: finished, failed, cancelled,
-- expired); null means all of them. on_clash says what happens in its place:
-- "skip" (the id of the other is returned), and for a job that still waits for its time "replace" (its args and time),
-- "reschedule" (its time) or "merge" (args are joined: lists are appended, the rest replaced).
-- locks: none that anyone waits for; with a unique key, others that add the same key wait until this transaction ends
create or replace function pipeline.enqueue(
    task text,
    args jsonb default '{}',
    queue text default null,
    priority int default null,
    run_at timestamptz default null,
    max_attempts int default null,
    timeout interval default null,
    key text default null,
    expires_at timestamptz default null,
    unique_key text default null,
    unique_for interval default null,
    unique_states text[] default null,
    on_clash text default null
) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    v_queue text;
    v_priority int;
    v_max_attempts int;
    v_timeout interval;
    v_now timestamptz;
    v_simple bool;
    v_quiet bool;
    v_id bigint;
begin
    -- Nearly every job takes this way: one look and one insert. Each further statement or expression is prepared anew in
    -- every transaction, for 10,000 to 20,000 instructions, where a whole bare insert costs 120,000.
    select
        coalesce(queue, t.queue, 'default'), coalesce(priority, t.priority, 0), coalesce(max_attempts, t.max_attempts, 5),
        coalesce(timeout, t.timeout), n.now,
        run_at is null and unique_key is null and expires_at is null and t.key is null and t.unique_by is null
        and t.expires is null and task <> '' and jsonb_typeof(args) = 'object' and queue <> '' is not false and length(queue) <= 200 is not false
        and priority between -32768 and 32767 is not false and max_attempts >= 1 is not false
        and timeout > '0' is not false and length(key) <= 200 is not false and length(task) <= 500 and pg_column_size(args) <= 4096,
        exists (
            select from pipeline.lane l
            where l.queue = coalesce(queue, t.queue, 'default') and l.priority = coalesce(priority, t.priority, 0)
                and l.key = coalesce(key, '')
        )
        and pg_try_advisory_xact_lock_shared(1885697640, hashtext(coalesce(queue, t.queue, 'default')))
    into v_queue, v_priority, v_max_attempts, v_timeout, v_now, v_simple, v_quiet
    from (
        -- the call alone would be one expression more to prepare: 8,000 instructions
        select case when current_setting('pipeline.fake_now', true) <> '' then pipeline.now() else statement_timestamp() end as now
    ) n
    left join pipeline.task t on t.name = task;
    if v_simple is not true then
        return pipeline.enqueue_with(
            task, args, queue, priority, run_at, max_attempts, timeout, key, expires_at, unique_key, unique_for,
            unique_states, on_clash
        );
    end if;
    insert into pipeline.job (task, args, queue, priority, max_attempts, timeout, key, run_at, created_at)
    values (task, args, v_queue, v_priority, v_max_attempts, v_timeout, coalesce(key, ''), v_now, v_now)
    returning id into v_id;
    if not v_quiet then
        perform pipeline.request_lane(v_queue, v_priority, coalesce(key, '')), pipeline.wake_workers(v_queue);
    end if;
    return v_id;
end
$$;

-- enqueue_with: what enqueue does when there is more to it: a time, a key of the task's making, uniqueness, a mistake
create or replace function pipeline.enqueue_with(
    task text, args jsonb, queue text, priority int, run_at timestamptz, max_attempts int, timeout interval, key text,
    expires_at timestamptz, unique_key text, unique_for interval, unique_states text[], on_clash text
) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    v_known pipeline.task;
begin
    select * into v_known from pipeline.task t where t.name = task;
    if v_known.name is not null then
        queue := coalesce(queue, v_known.queue);
        priority := coalesce(priority, v_known.priority);
        max_attempts := coalesce(max_attempts, v_known.max_attempts);
        timeout := coalesce(timeout, v_known.timeout);
        key := coalesce(key, pipeline.render_key(v_known.key, args));
        expires_at := coalesce(expires_at, greatest(run_at, pipeline.now()) + v_known.expires);
        if v_known.unique_by is not null and unique_key is null then
            unique_key := case
                when v_known.unique_by = '*' then '*' else task || ':' || pipeline.render_key(v_known.unique_by, args)
            end;
            unique_for := coalesce(unique_for, v_known.unique_for);
            unique_states := coalesce(unique_states, v_known.unique_states);
            on_clash := coalesce(on_clash, v_known.on_clash);
        end if;
    end if;
    perform pipeline.refuse_job(task, args, queue, priority, max_attempts, timeout, key);
    if unique_key = '*' then
        unique_key := task || ':' || md5(args::text);
    end if;
    if unique_key is not null then
        return pipeline.enqueue_unique(
            task, args, coalesce(queue, 'default'), coalesce(priority, 0), run_at, coalesce(max_attempts, 5), timeout,
            coalesce(key, ''), expires_at, unique_key, unique_for, unique_states, coalesce(on_clash, 'skip')
        );
    end if;
    return pipeline.add_job(
        task, args, coalesce(queue, 'default'), coalesce(priority, 0), run_at, coalesce(max_attempts, 5), timeout,
        coalesce(key, ''), expires_at
    );
end
$$;
revoke execute on function pipeline.enqueue_with from public;

-- add_job: adds a job of which everything is known
create or replace function pipeline.add_job(
    p_task text, p_args jsonb, p_queue text, p_priority int, p_run_at timestamptz, p_max_attempts int, p_timeout interval,
    p_key text, p_expires_at timestamptz
) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now timestamptz := pipeline.now();
    v_later bool := coalesce(p_run_at > v_now, false);
    v_id bigint;
begin
    perform pg_current_xact_id(); -- before a position is drawn
    insert into pipeline.job (task, args, queue, priority, pos, run_at, created_at, max_attempts, timeout, key, expires_at)
    values (
        p_task, p_args, p_queue, p_priority, case when not v_later then nextval('pipeline.job_pos') end,
        greatest(p_run_at, v_now), v_now, p_max_attempts, p_timeout, p_key, p_expires_at
    )
    returning id into v_id;
    perform pipeline.request_lane(p_queue, p_priority, p_key);
    if not v_later then
        perform pipeline.ring_workers(p_queue);
    end if;
    return v_id;
end
$$;
revoke execute on function pipeline.add_job from public;

-- refuse_job: raises what is wrong with a job, if anything is
create or replace function pipeline.refuse_job(
    p_task text, p_args jsonb, p_queue text, p_priority int, p_max_attempts int, p_timeout interval, p_key text
) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if coalesce(p_task, '') = '' or length(p_task) > 500 then
        raise exception 'a job needs the name of its task' using errcode = 'invalid_parameter_value',
            hint = 'A name has 1 to 500 characters.';
    elsif p_queue = '' or length(p_queue) > 200 then
        raise exception 'a job needs a queue' using errcode = 'invalid_parameter_value',
            hint = 'Leave queue out to use the task''s own; a name has 1 to 200 characters.';
    elsif jsonb_typeof(p_args) is distinct from 'object' then
        raise exception 'args of task % must be a JSON object', p_task using errcode = 'invalid_parameter_value',
            hint = 'Give the task''s named arguments, as in ''{"order_id": 42}''.';
    elsif pg_column_size(p_args) > 4096 and octet_length(p_args::text) > pipeline.most_bytes() then
        raise exception 'args of task % are % bytes of JSON; a job takes %', p_task, octet_length(p_args::text), pipeline.most_bytes()
            using errcode = 'invalid_parameter_value', hint = 'Put the data in a table and pass its id.';
    elsif p_priority not between -32768 and 32767 then
        raise exception 'priority % is out of range', p_priority using errcode = 'invalid_parameter_value',
            hint = 'Use -32768 to 32767; the lower number runs first.';
    elsif p_max_attempts < 1 then
        raise exception 'max_attempts must be at least 1' using errcode = 'invalid_parameter_value';
    elsif p_timeout <= '0' then
        raise exception 'timeout must be above 0' using errcode = 'invalid_parameter_value';
    elsif length(p_key) > 200 then
        raise exception 'the key of a job may have 200 characters, not %', length(p_key)
            using errcode = 'invalid_parameter_value';
    end if;
end
$$;
revoke execute on function pipeline.refuse_job from public;

-- most_bytes: how long the JSON text of a job's args may be; MOST_BYTES in Python
--
-- What is stored in 4,096 bytes, compressed too, is never longer unless it is made of numbers such as 1e99999; so the text
-- of small args, nearly all there are, is not made just to be measured. A planner takes the call for a constant.
create or replace function pipeline.most_bytes() returns int
language sql immutable
set search_path = pg_catalog, pg_temp
as 'select 1048576';
revoke execute on function pipeline.most_bytes from public;

-- render_key: a template with each {name} replaced by that argument; null for no template
create or replace function pipeline.render_key(p_template text, p_args jsonb) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select string_agg(case when i % 2 = 1 then part else coalesce(p_args ->> part, '') end, '' order by i)
    from regexp_split_to_table(p_template, '[{}]') with ordinality as p (part, i)
$$;
revoke execute on function pipeline.render_key from public;

-- ring_workers: wakes the workers of a queue unless none of them sleeps
--
-- A worker that finds nothing to do takes its queue's advisory lock, looks once more, and sleeps. Whoever adds a job takes
-- that lock shared, for the transaction, if it can: then no worker sleeps, and none falls asleep before the job is there to
-- be found. Nobody ever waits for the lock. While workers are busy nothing is told, and a job costs its insert alone.
create or replace function pipeline.ring_workers(p_queue text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if not pg_try_advisory_xact_lock_shared(1885697640, hashtext(p_queue)) then
        perform pipeline.wake_workers(p_queue);
    end if;
end
$$;
revoke execute on function pipeline.ring_workers(text) from public;

-- wake_workers: tells the workers of a queue to look, once for many calls in a row of the same transaction
--
-- What was last told is kept in a setting that ends with the transaction, and that a rollback to a savepoint takes back
-- together with the event itself.
create or replace function pipeline.wake_workers(p_queue text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_told text := pg_current_xact_id()::text || ':' || p_queue;
begin
    if current_setting('pipeline.told_workers', true) is distinct from v_told then
        perform pipeline.emit('pipeline.jobs', p_queue);
        perform set_config('pipeline.told_workers', v_told, true);
    end if;
end
$$;
revoke execute on function pipeline.wake_workers(text) from public;
