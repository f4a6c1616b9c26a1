-- enqueue_on: from now on each row that `op` touches in a table becomes a job; returns the name of the trigger
--
-- op: insert, update or delete. queue: null is the task's own. The job's args are the row: the new one, or for delete the old one. share: which part of
-- the rows, chosen at random, above 0 and at most 1. Calling it again with the same op and task replaces the trigger; drop
-- the trigger to end it. The caller needs the TRIGGER privilege on the table. Statements that name a partition instead
-- of its parent are not seen.
-- locks: SHARE ROW EXCLUSIVE on the table, tried for 50 ms at a time so that nobody queues behind the wait
create or replace function pipeline.enqueue_on(
    tbl regclass,
    op text,
    task text,
    queue text default null,
    share double precision default 1.0
) returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_kind "char" := (select c.relkind from pg_class c where c.oid = tbl);
    v_before text := current_setting('lock_timeout');
    v_name text := 'pipeline_enqueue_' || op || '_' || task;
    v_tries int := 0;
begin
    if op is null or op not in ('insert', 'update', 'delete') then
        raise exception 'op must be insert, update or delete, not %', coalesce(op, 'null')
            using errcode = 'invalid_parameter_value';
    elsif coalesce(share > 0 and share <= 1, false) is not true then
        raise exception 'share must be above 0 and at most 1, not %', share using errcode = 'invalid_parameter_value';
    elsif coalesce(task, '') = '' or queue = '' then
        raise exception 'a job needs a task, and its queue a name' using errcode = 'invalid_parameter_value';
    elsif coalesce(v_kind not in ('r', 'p'), true) then
        raise exception '% is not a table', tbl using errcode = 'wrong_object_type';
    end if;
    if octet_length(v_name) > 63 then
        v_name := 'pipeline_enqueue_' || op || '_' || md5(task);
    end if;

    perform set_config('lock_timeout', '50ms', true);
    loop
        begin
            execute format('lock table %s in share row exclusive mode', tbl);
            exit;
        exception when lock_not_available then
            v_tries := v_tries + 1;
            if v_tries = 40 then
                raise exception 'the lock on % could not be had in %', tbl, '10 s' using errcode = 'lock_not_available',
                    hint = 'A transaction that writes to the table has been open for long. End it, or call again later.';
            end if;
            perform pg_sleep(0.15 + random() * 0.1);
        end;
    end loop;
    perform set_config('lock_timeout', v_before, true);

    execute format(
        'create or replace trigger %I after %s on %s referencing %s table as changed '
        'for each statement execute function pipeline.enqueue_rows(%L, %L, %L)',
        v_name, op, tbl, case op when 'delete' then 'old' else 'new' end, task, coalesce(queue, ''), share
    );
    return v_name;
end
$$;
