-- Brings the watches up to date with what was done to their tables: dropped, renamed, partitions attached or
-- detached, triggers dropped or disabled. Called by the pump every few seconds, and at once by an event trigger
-- where the role may have one. Returns what it found. It waits for no lock longer than 100 ms.
create or replace function pipeline.check_watches() returns table (tag text, finding text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_watch pipeline.watch;
    v_name text;
    v_one oid;
    v_tree oid[];
begin
    perform set_config('pipeline.own_ddl', 'on', true);
    for v_watch in select w.* from pipeline.watch w order by w.id for update skip locked loop
        v_name := pipeline.tag_of(v_watch.relation);
        tag := v_watch.tag;
        if v_name is null then
            perform pipeline.drop_watch_triggers(v_watch);
            delete from pipeline.watch w where w.id = v_watch.id;
            perform pipeline.write_event(null, 'w', null, 0, null, v_watch.tag);
            finding := 'dropped';
            return next;
            continue;
        end if;
        if v_name <> v_watch.tag then
            update pipeline.watch w set tag = v_name where w.id = v_watch.id;
            perform pipeline.write_event(null, 'w', null, 0, null, v_watch.tag);
            perform pipeline.write_event(v_watch.id, 'w', null, 0, null, v_name);
            finding := format('renamed to %s', v_name);
            return next;
        end if;
        select coalesce(array_agg(r order by r), '{}') into v_tree from pipeline.relations_of(v_watch.relation) r;
        if v_tree is distinct from v_watch.tree then
            -- a partition came or went with rows that no statement on this table ever wrote
            if v_watch.tree is not null then
                perform pipeline.write_event(v_watch.id, 'w', null, 0, null, v_name);
                finding := 'partitions changed';
                return next;
            end if;
            update pipeline.watch w set tree = v_tree where w.id = v_watch.id;
        end if;
        begin
            perform set_config('lock_timeout', '100ms', true);
            foreach v_one in array v_tree loop
                if pipeline.create_watch_triggers(v_watch, v_one) > 0 then
                    perform pipeline.write_event(v_watch.id, 'w', null, 0, null, v_name);
                    finding := format('triggers created on %s', v_one::regclass);
                    return next;
                end if;
            end loop;
        exception when lock_not_available or insufficient_privilege then
            finding := format('triggers are missing: %s', sqlerrm);
            return next;
        end;
        -- what a disabled trigger does not report is made good by naming the whole table at each check
        if exists (select from pg_trigger t where t.tgrelid = any (v_tree) and t.tgenabled = 'D'
                   and t.tgname ~ format('^pgreflex_%s_', v_watch.id)) then
            perform pipeline.write_event(v_watch.id, 'w', null, 0, null, v_name);
            finding := 'triggers are disabled';
            return next;
        end if;
    end loop;
    perform set_config('pipeline.own_ddl', 'off', true);
end
$$;
revoke execute on function pipeline.check_watches from public;
