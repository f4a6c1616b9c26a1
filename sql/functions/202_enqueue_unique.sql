-- enqueue_unique: adds a job unless another one holds its unique key; returns the id of whichever holds it afterwards
--
-- The other one holds it while it is in one of p_states (null: any), once it has ended only as long as its window lasts. A
-- job that may already run is never changed: its worker has read it. In its place "replace", "reschedule" and "merge" add
-- a job, so that nothing is lost.
-- locks: the unique key's row, until the transaction ends; the other job's row when it is changed
create or replace function pipeline.enqueue_unique(
    p_task text, p_args jsonb, p_queue text, p_priority int, p_run_at timestamptz, p_max_attempts int, p_timeout interval,
    p_key text, p_expires_at timestamptz, p_unique text, p_for interval, p_states text[], p_on_clash text
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
    if p_states is not null or p_on_clash not in ('skip', 'replace', 'reschedule', 'merge') or length(p_unique) > 500 then
        perform pipeline.refuse_unique(p_task, p_unique, p_for, p_states, p_on_clash);
    end if;
    loop
        insert into pipeline.job_unique (key, job) values (p_unique, 0) on conflict do nothing;
        select * into v_other from pipeline.job_unique u where u.key = p_unique for update;
        exit when found; -- else a cleanup has deleted the row between the two
    end loop;
    select * into v_job from pipeline.job j where j.id = v_other.job;

    if not pipeline.is_in(v_other, v_job, p_states) then
        null; -- it holds the key no more
    elsif p_on_clash = 'skip' or v_job.id is null then
        return v_other.job;
    elsif v_job.pos is null then
        if p_on_clash = 'merge' then
            v_args := pipeline.merge_args(v_job.args, p_args);
        end if;
        update pipeline.job j set
            args = case when p_on_clash = 'reschedule' then j.args else v_args end,
            run_at = case when p_on_clash = 'merge' then j.run_at else coalesce(p_run_at, v_now) end
        where j.id = v_job.id and j.pos is null -- it may have been promoted this moment: then it is added anew
            and octet_length(v_args::text) <= pipeline.most_bytes(); -- and so it is when the other one is full
        if found then
            return v_job.id;
        end if;
    end if;

    v_id := pipeline.add_job(p_task, p_args, p_queue, p_priority, p_run_at, p_max_attempts, p_timeout, p_key, p_expires_at);
    update pipeline.job_unique u set job = v_id, kept_until = v_now + p_for where u.key = p_unique;
    return v_id;
end
$$;
revoke execute on function pipeline.enqueue_unique from public;

-- is_in: whether the job that has a unique key is in one of these states (null: any), and if it has ended, still counts
--
-- p_job: its row in the live table, as it is now, or nothing. Of a job that the archive has dropped nobody knows the state.
create or replace function pipeline.is_in(p_unique pipeline.job_unique, p_job pipeline.job, p_states text[]) returns bool
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_job.id is null then
        return coalesce(pipeline.now() < p_unique.kept_until, false) and (p_states is null or exists (
            select from pipeline.job_archive a where a.id = p_unique.job and a.state = any(p_states)
        ));
    elsif p_job.needs > 0 then
        return 'blocked' = any(p_states) is not false;
    elsif p_job.pos is null then
        return 'delayed' = any(p_states) is not false;
    elsif 'ready' = any(p_states) = ('running' = any(p_states)) is not false then
        return 'ready' = any(p_states) is not false; -- then it does not matter in which of the two it is
    end if;
    return case when pipeline.is_held(p_job) then 'running' else 'ready' end = any(p_states);
end
$$;
revoke execute on function pipeline.is_in from public;

-- refuse_unique: raises what is wrong with how a job is to be unique, if anything is
create or replace function pipeline.refuse_unique(
    p_task text, p_unique text, p_for interval, p_states text[], p_on_clash text
) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    c_live constant text[] := '{blocked,delayed,ready,running}';
    c_ended constant text[] := '{finished,failed,cancelled,expired}';
begin
    if p_on_clash not in ('skip', 'replace', 'reschedule', 'merge') or length(p_unique) > 500 then
        raise exception 'a unique job of task % has an option that is not known', p_task
            using errcode = 'invalid_parameter_value',
            hint = 'on_clash is skip, replace, reschedule or merge; a key has 500 characters.';
    elsif cardinality(p_states) = 0 or not p_states <@ (c_live || c_ended) then
        raise exception 'unique_states of task % are not states of a job', p_task using errcode = 'invalid_parameter_value',
            hint = 'Name some of ' || array_to_string(c_live || c_ended, ', ') || '; leave it out for all of them.';
    elsif p_states && c_ended and p_for is null then
        raise exception 'unique_states of task % name one that has ended, and there is no unique_for', p_task
            using errcode = 'invalid_parameter_value', hint = 'Say for how long after it was added such a job counts.';
    elsif not p_states && c_ended and p_for is not null then
        raise exception 'unique_for of task % means nothing: no state that has ended is named', p_task
            using errcode = 'invalid_parameter_value', hint = 'Name some of them too, or leave one of the two out.';
    end if;
end
$$;
revoke execute on function pipeline.refuse_unique from public;

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
