-- make_runs: adds a job for each of these scheduled times of a schedule that has none yet; returns how many
--
-- Whether the schedule is paused or due is the caller's business.
-- locks: none, unless another transaction makes the same run
create or replace function pipeline.make_runs(p_name text, p_times timestamptz[]) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set lock_timeout = '2s' -- a unique job's key may be held by somebody's long transaction
as $$
declare
    v_at timestamptz;
    v_made int := 0;
begin
    for v_at in select distinct t from unnest(p_times) t order by t loop
        -- first the row that stands for the run: whoever else is at it waits here, and then makes none
        insert into pipeline.schedule_run (name, at, made_at) values (p_name, v_at, pipeline.now()) on conflict do nothing;
        if found then
            update pipeline.schedule_run r set job = pipeline.enqueue_run(p_name, v_at) where (r.name, r.at) = (p_name, v_at);
            v_made := v_made + 1;
        end if;
    end loop;
    return v_made;
end
$$;
revoke execute on function pipeline.make_runs(text, timestamptz[]) from public;

-- enqueue_run: adds the job of one run; what the schedule leaves open is the task's own. Returns the job's id
create or replace function pipeline.enqueue_run(p_name text, p_at timestamptz) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    s pipeline.schedule;
    v_args jsonb;
begin
    select * into strict s from pipeline.schedule x where x.name = p_name;
    v_args := s.args;
    if v_args -> 'scheduled_for' = 'null' then
        v_args := v_args || jsonb_build_object(
            'scheduled_for', to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
        );
    end if;
    return pipeline.enqueue(s.task, v_args, queue => s.queue, priority => s.priority::int, run_at => p_at);
end
$$;
revoke execute on function pipeline.enqueue_run(text, timestamptz) from public;
