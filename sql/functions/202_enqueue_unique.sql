-- enqueue_unique: adds a job unless another one holds its unique key; returns the id of whichever holds it afterwards
--
-- A job that may already run is never changed: its worker has read it. In its place "replace", "reschedule" and "merge" add
-- a job, so that nothing is lost.
-- locks: the unique key's row, until the transaction ends; the other job's row when it is changed
create or replace function pipeline.enqueue_unique(
    p_task text, p_args jsonb, p_queue text, p_priority int, p_run_at timestamptz, p_max_attempts int, p_timeout interval,
    p_key text, p_expires_at timestamptz, p_unique text, p_for interval, p_until text, p_on_clash text
) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now timestamptz := pipeline.now();
    v_other pipeline.job_unique;
    v_job pipeline.job;
    v_args jsonb := p_args;
    v_id bigint;
begin
    if p_until not in ('start', 'end') or p_on_clash not in ('skip', 'replace', 'reschedule', 'merge')
        or length(p_unique) > 500
    then
        raise exception 'a unique job of task % has an option that is not known', p_task
            using errcode = 'invalid_parameter_value',
            hint = 'unique_until is start or end; on_clash is skip, replace, reschedule or merge; a key has 500 characters.';
    end if;
    loop
        insert into pipeline.job_unique (key, job, until) values (p_unique, 0, p_until) on conflict do nothing;
        select * into v_other from pipeline.job_unique u where u.key = p_unique for update;
        exit when found; -- else a cleanup has deleted the row between the two
    end loop;
    select * into v_job from pipeline.job j where j.id = v_other.job;

    if p_on_clash = 'merge' then
        v_args := pipeline.merge_args(v_job.args, p_args);
        if octet_length(v_args::text) > pipeline.most_bytes() then
            v_job.pos := 0; -- it is full, so it is left as one that may run
        end if;
    end if;
    if v_job.id is not null and v_job.pos is null and p_on_clash <> 'skip' then
        update pipeline.job j set
            args = case when p_on_clash = 'reschedule' then j.args else v_args end,
            run_at = case when p_on_clash = 'merge' then j.run_at else coalesce(p_run_at, v_now) end
        where j.id = v_job.id and j.pos is null; -- it may have been promoted this moment: then it is added anew
        if found then
            return v_job.id;
        end if;
    elsif p_on_clash = 'skip' and (
        v_now < v_other.kept_until
        or v_job.id is not null and (p_until = 'end' or v_job.pos is null or not pipeline.is_held(v_job))
    ) then
        return v_other.job;
    elsif v_job.id is null and v_now < v_other.kept_until then
        return v_other.job;
    end if;

    v_id := pipeline.add_job(p_task, p_args, p_queue, p_priority, p_run_at, p_max_attempts, p_timeout, p_key, p_expires_at);
    update pipeline.job_unique u set job = v_id, until = p_until, kept_until = v_now + p_for where u.key = p_unique;
    return v_id;
end
$$;
revoke execute on function pipeline.enqueue_unique from public;

-- merge_args: the second object over the first; where both have a list, the second's is appended
create or replace function pipeline.merge_args(p_old jsonb, p_new jsonb) returns jsonb
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select p_old || p_new || coalesce((
        select jsonb_object_agg(n.key, (p_old -> n.key) || n.value)
        from jsonb_each(p_new) n
        where jsonb_typeof(n.value) = 'array' and jsonb_typeof(p_old -> n.key) = 'array'
    ), '{}')
$$;
revoke execute on function pipeline.merge_args from public;

-- is_held: whether a worker has the job
create or replace function pipeline.is_held(p_job pipeline.job) returns bool
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select from pipeline.lease e
        where e.queue = p_job.queue and e.priority = p_job.priority and e.key = p_job.key and p_job.id = any(e.ids)
    )
$$;
revoke execute on function pipeline.is_held from public;
