-- enqueue: adds a job and wakes the workers of its queue when the transaction commits; returns the job's id
--
-- task: the name of a registered task. args: an object, the task's named arguments. priority: -32768 to 32767, the lower
-- number runs first. run_at: not before this time; null means at once. max_attempts: how often it may run until it has
-- failed. timeout: how long one run may take; null means the task's own limit.
-- locks: none that anyone waits for
create or replace function pipeline.enqueue(
    task text,
    args jsonb default '{}',
    queue text default 'default',
    priority int default 0,
    run_at timestamptz default null,
    max_attempts int default 5,
    timeout interval default null
) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz := pipeline.now();
    v_later bool := coalesce(enqueue.run_at > v_now, false);
    v_id bigint;
begin
    if coalesce(enqueue.task, '') = '' then
        raise exception 'a job needs the name of its task' using errcode = 'invalid_parameter_value';
    elsif coalesce(enqueue.queue, '') = '' then
        raise exception 'a job needs a queue' using errcode = 'invalid_parameter_value',
            hint = 'Leave queue out to use the queue "default".';
    elsif jsonb_typeof(enqueue.args) is distinct from 'object' then
        raise exception 'args of task % must be a JSON object', enqueue.task using errcode = 'invalid_parameter_value',
            hint = 'Give the task''s named arguments, as in ''{"order_id": 42}''.';
    elsif coalesce(enqueue.priority not between -32768 and 32767, true) then
        raise exception 'priority % is out of range', enqueue.priority using errcode = 'invalid_parameter_value',
            hint = 'Use -32768 to 32767; the lower number runs first.';
    elsif coalesce(enqueue.max_attempts < 1, true) then
        raise exception 'max_attempts must be at least 1' using errcode = 'invalid_parameter_value';
    end if;

    if v_later then
        insert into pipeline.job (task, args, queue, priority, pos, run_at, created_at, max_attempts, timeout)
        values (enqueue.task, enqueue.args, enqueue.queue, enqueue.priority, null, enqueue.run_at, v_now,
                enqueue.max_attempts, enqueue.timeout)
        returning id into v_id;
        perform pipeline.request_lane(enqueue.queue, enqueue.priority);
    else
        insert into pipeline.job (task, args, queue, priority, run_at, created_at, max_attempts, timeout)
        values (enqueue.task, enqueue.args, enqueue.queue, enqueue.priority, v_now, v_now,
                enqueue.max_attempts, enqueue.timeout)
        returning id into v_id;
        perform pipeline.request_lane(enqueue.queue, enqueue.priority);
        perform pipeline.wake_workers(enqueue.queue);
    end if;
    return v_id;
end
$$;

-- request_lane: leaves a note for the workers where a lane is missing
create or replace function pipeline.request_lane(p_queue text, p_priority int) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (
        select from pipeline.lane l where l.queue = p_queue and l.priority = p_priority::smallint
    ) then
        insert into pipeline.lane_request (queue, priority) values (p_queue, p_priority);
    end if;
end
$$;
revoke execute on function pipeline.request_lane(text, int) from public;

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
