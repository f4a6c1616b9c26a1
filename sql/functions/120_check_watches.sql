-- Brings the watches up to date with what was done to their tables: dropped, renamed, partitions attached or
-- detached, triggers dropped or disabled, columns of another type. Called by the pump every few seconds, and at once
-- by an event trigger where the role may have one. Returns what it found. It waits for no lock longer than 100 ms.

-- Whether there may be something to do; writes and locks nothing, since it runs after every DDL command.
create or replace function pipeline.needs_check(p_watch pipeline.watch) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select pipeline.watch_problem(p_watch) is not null
        or p_watch.tree is distinct from (select array_agg(r order by r) from pipeline.relations_of(p_watch.relation) r)
        or exists (select from pipeline.spare_triggers(p_watch))
        or exists (select from pipeline.relations_of(p_watch.relation) r, pipeline.triggers_of(p_watch, r) t, pg_trigger g
                   where g.tgrelid = r and g.tgname = format('pgreflex_%s_%s', p_watch.id, t.suffix)
                     and g.tgenabled <> upper(left(t.mode, 1))::"char")
        or pipeline.is_read_unlike(p_watch)
$$;
revoke execute on function pipeline.needs_check from public;

-- Whether the functions of a watch read its keys as the writer's session does, and must not any more.
create or replace function pipeline.is_read_unlike(p_watch pipeline.watch) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select pipeline.reads_unlike(p_watch) and exists (
        select from pg_proc
        where pronamespace = 'pipeline'::regnamespace and proname = format('watch_%s_insert', p_watch.id)
          and not 'extra_float_digits=1' = any (proconfig))
$$;
revoke execute on function pipeline.is_read_unlike from public;

create or replace function pipeline.check_watches() returns table (tag text, finding text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_watch pipeline.watch;
    v_before constant text := current_setting('lock_timeout');
begin
    perform set_config('pipeline.own_ddl', 'on', true);
    for v_watch in
        select w.* from pipeline.watch w where pipeline.needs_check(w) order by w.id for update skip locked
    loop
        tag := v_watch.tag;
        for finding in select * from pipeline.follow_table(v_watch) loop
            return next;
        end loop;
        select * into v_watch from pipeline.watch w where w.id = v_watch.id;
        continue when not found;
        begin
            perform set_config('lock_timeout', '100ms', true);
            for finding in select * from pipeline.mend_triggers(v_watch) loop
                return next;
            end loop;
            perform set_config('lock_timeout', v_before, true);
        exception when lock_not_available or insufficient_privilege then
            -- what a missing trigger does not report is made good by naming the whole table at each check
            perform pipeline.write_event(v_watch.id, 'w', null, 0, null, v_watch.tag);
            finding := format('triggers are missing: %s', sqlerrm);
            return next;
        end;
    end loop;
    perform set_config('pipeline.own_ddl', 'off', true);
    perform pipeline.tell_schema_changes();
end
$$;
revoke execute on function pipeline.check_watches from public;

-- A table that was dropped or renamed, or whose partitions changed.
create or replace function pipeline.follow_table(p_watch pipeline.watch) returns setof text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_name constant text := pipeline.tag_of(p_watch.relation);
    v_tree oid[];
begin
    if v_name is null then
        perform pipeline.drop_watch(p_watch);
        return next 'dropped';
        return;
    end if;
    if v_name <> p_watch.tag then
        update pipeline.watch w set tag = v_name where w.id = p_watch.id;
        perform pipeline.write_event(null, 'w', null, 0, null, p_watch.tag);
        perform pipeline.write_event(p_watch.id, 'w', null, 0, null, v_name);
        return next format('renamed to %s', v_name);
    end if;
    select array_agg(r order by r) into v_tree from pipeline.relations_of(p_watch.relation) r;
    if v_tree is distinct from p_watch.tree then
        -- a partition came or went with rows that no statement on this table ever wrote
        update pipeline.watch w set tree = v_tree where w.id = p_watch.id;
        perform pipeline.write_event(p_watch.id, 'w', null, 0, null, v_name);
        return next 'partitions changed';
    end if;
end
$$;
revoke execute on function pipeline.follow_table from public;

-- Triggers and functions as they should be. Raises lock_not_available when a table is busy.
create or replace function pipeline.mend_triggers(p_watch pipeline.watch) returns setof text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_one oid;
begin
    if pipeline.is_read_unlike(p_watch) then
        perform pipeline.create_watch_functions(p_watch);
        perform pipeline.write_event(p_watch.id, 'w', null, 0, null, p_watch.tag);
        return next 'a column has another type';
    end if;
    for v_one in select r from pipeline.relations_of(p_watch.relation) r loop
        if pipeline.create_watch_triggers(p_watch, v_one) > 0 then
            perform pipeline.write_event(p_watch.id, 'w', null, 0, null, p_watch.tag);
            return next format('triggers created on %s', v_one::regclass);
        end if;
    end loop;
    if pipeline.drop_spare_triggers(p_watch) > 0 then
        return next 'triggers removed';
    end if;
    -- what a disabled trigger does not report is made good by naming the whole table at each check
    if exists (select from pg_trigger t where t.tgenabled = 'D' and t.tgname ~ format('^pgreflex_%s_', p_watch.id)) then
        perform pipeline.write_event(p_watch.id, 'w', null, 0, null, p_watch.tag);
        return next 'triggers are disabled';
    end if;
end
$$;
revoke execute on function pipeline.mend_triggers from public;
