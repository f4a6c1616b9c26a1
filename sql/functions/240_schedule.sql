-- schedule: lets a job come again and again; calling it again changes the schedule of that name
--
-- cron: five fields, a name such as @daily, or an interval such as 'every 5m'. args: the task's named arguments; a key
-- "scheduled_for" that is null is filled with the scheduled time. timezone: by whose clock. missed: what becomes of runs
-- that no daemon made in time: skip, one (only the newest), all (at most max_missed, the newest). queue, priority: null
-- means those of the task.
-- What only a daemon can tell (a day that never comes, say) it tells in the column problem, within a second.
-- locks: the schedule's row
create or replace function pipeline.schedule(
    name text,
    cron text,
    task text,
    args jsonb default '{}',
    timezone text default 'UTC',
    missed text default 'one',
    queue text default null,
    priority int default null,
    max_missed int default 100
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz := pipeline.now();
begin
    if coalesce(schedule.name, '') = '' or length(schedule.name) > 200 then
        raise exception 'a schedule needs a name of 1 to 200 characters' using errcode = 'invalid_parameter_value';
    elsif coalesce(schedule.task, '') = '' then
        raise exception 'schedule % needs the name of its task', schedule.name using errcode = 'invalid_parameter_value';
    elsif jsonb_typeof(schedule.args) is distinct from 'object' then
        raise exception 'args of schedule % must be a JSON object', schedule.name
            using errcode = 'invalid_parameter_value', hint = 'Give the task''s named arguments, as in ''{"shop": 42}''.';
    elsif pg_column_size(schedule.args) > 4096 and octet_length(schedule.args::text) > pipeline.most_bytes() then
        raise exception 'args of schedule % are % bytes of JSON; a job takes %',
            schedule.name, octet_length(schedule.args::text), pipeline.most_bytes()
            using errcode = 'invalid_parameter_value', hint = 'Put the data in a table and pass its id.';
    elsif coalesce(schedule.missed not in ('skip', 'one', 'all'), true) then
        raise exception 'missed must be skip, one or all, not %', coalesce(schedule.missed, 'null')
            using errcode = 'invalid_parameter_value';
    elsif coalesce(schedule.max_missed not between 1 and 10000, true) then
        raise exception 'max_missed must be 1 to 10000, not %', coalesce(schedule.max_missed::text, 'null')
            using errcode = 'invalid_parameter_value';
    elsif schedule.queue = '' then
        raise exception 'the queue of schedule % has no name', schedule.name
            using errcode = 'invalid_parameter_value', hint = 'Leave queue out to use the queue of the task.';
    elsif schedule.priority not between -32768 and 32767 then
        raise exception 'priority % is out of range', schedule.priority using errcode = 'invalid_parameter_value',
            hint = 'Use -32768 to 32767; the lower number runs first.';
    end if;
    perform pipeline.check_cron(schedule.cron, schedule.timezone);

    insert into pipeline.schedule as s (
        name, task, args, queue, priority, cron, timezone, missed, max_missed, source, until, created_at, seen_at
    )
    values (
        schedule.name, schedule.task, schedule.args, schedule.queue, schedule.priority, schedule.cron, schedule.timezone,
        schedule.missed, schedule.max_missed, 'sql', v_now, v_now, v_now
    )
    on conflict (name) do update set
        task = excluded.task, args = excluded.args, queue = excluded.queue, priority = excluded.priority,
        cron = excluded.cron, timezone = excluded.timezone, missed = excluded.missed, max_missed = excluded.max_missed,
        -- other times count from now; what is due by the old ones stays due if they are the same
        until = case when (s.cron, s.timezone) = (excluded.cron, excluded.timezone) then s.until
                     else greatest(s.until, excluded.until) end,
        next_at = null, problem = null
    where s.source = 'sql';
    if not found then
        raise exception 'schedule % is defined in code', schedule.name using errcode = 'object_not_in_prerequisite_state',
            hint = 'Change it there, pause it, or choose another name.';
    end if;
end
$$;
revoke execute on function pipeline.schedule from public;

-- check_cron: refuses what cannot be a schedule's time by its looks alone; the rest is a daemon's to judge
create or replace function pipeline.check_cron(p_cron text, p_timezone text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    v_field constant text := '[*0-9a-zA-Z][-*/,#0-9a-zA-Z]*';
begin
    if length(p_cron) > 200 or coalesce(btrim(p_cron), '') !~* (
        '^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|every\s+[1-9][0-9]{0,8}\s*[smhd]|'
        || v_field || '(\s+' || v_field || '){4})$'
    ) then
        raise exception '% is not a cron expression', coalesce(quote_literal(left(p_cron, 200)), 'null')
            using errcode = 'invalid_parameter_value',
                hint = 'Write five fields as in ''0 3 * * *'', a name such as @daily, or an interval: every 30s, every 5m.';
    end if;
    if coalesce(p_timezone, '') !~ '^[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$' or length(p_timezone) > 100 then
        raise exception '% is not a time zone', coalesce(quote_literal(left(p_timezone, 100)), 'null')
            using errcode = 'invalid_parameter_value', hint = 'Use a name such as Europe/Berlin.';
    end if;
    perform pipeline.now() at time zone p_timezone;  -- the server knows most names too
end
$$;
revoke execute on function pipeline.check_cron(text, text) from public;

-- unschedule: removes a schedule; false if there is none. A daemon that has it in its code brings it back when it starts.
-- locks: the schedule's row
create or replace function pipeline.unschedule(name text) returns bool
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from pipeline.schedule s where s.name = unschedule.name;
    return found;
end
$$;
revoke execute on function pipeline.unschedule from public;

-- pause_schedule: no more runs until it is resumed; false if there is no such schedule
-- locks: the schedule's row
create or replace function pipeline.pause_schedule(name text) returns bool
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    update pipeline.schedule s set paused = true where s.name = pause_schedule.name;
    return found;
end
$$;
revoke execute on function pipeline.pause_schedule from public;

-- resume_schedule: runs again, from now on: what a pause has left out is not made up. False if there is no such schedule
-- locks: the schedule's row
create or replace function pipeline.resume_schedule(name text) returns bool
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    update pipeline.schedule s
    set paused = false, next_at = null, problem = null,
        until = case when s.paused then greatest(s.until, pipeline.now()) else s.until end
    where s.name = resume_schedule.name;
    return found;
end
$$;
revoke execute on function pipeline.resume_schedule from public;

-- run_schedule: one run now, whatever the schedule says; returns the job's id, null if there is no such schedule
-- locks: none that anyone waits for
create or replace function pipeline.run_schedule(name text) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now timestamptz := pipeline.now();
    v_job bigint;
begin
    if exists (select from pipeline.schedule s where s.name = run_schedule.name) then
        v_job := pipeline.enqueue_run(run_schedule.name, v_now);
        insert into pipeline.schedule_run (name, at, job, made_at) values (run_schedule.name, v_now, v_job, v_now)
        on conflict do nothing;
    end if;
    return v_job;
end
$$;
revoke execute on function pipeline.run_schedule from public;
