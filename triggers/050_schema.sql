-- Tells the feed of DDL: what a view, a function or a name means may have changed, and with it every query whose tags
-- were found automatically. The event is a change of the whole of `pipeline.ddl`, at the DDL's commit.
--
-- It runs inside the user's own DDL transaction, so it must never fail it. Cost: one row of the outbox for each command.
-- Commands that cannot change the result of a query are left out, and whatever is temporary: a query that reads
-- temporary tables is not cached.
create or replace function pipeline.tell_ddl() returns event_trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if current_setting('pipeline.own_ddl', true) = 'on' then
        return;
    end if;
    if tg_event = 'sql_drop' then
        if not exists (
            select from pg_event_trigger_dropped_objects() d
            where not d.is_temporary and d.schema_name is distinct from 'pipeline'
              and d.object_type not in ('index', 'trigger', 'table constraint', 'default value', 'toast table',
                                        'statistics object', 'sequence', 'publication', 'publication relation')
        ) then
            return;
        end if;
    elsif tg_tag in ('COMMENT', 'CREATE INDEX', 'ALTER INDEX', 'REINDEX', 'CREATE STATISTICS', 'ALTER STATISTICS',
                     'SECURITY LABEL', 'CREATE TRIGGER', 'ALTER TRIGGER', 'CREATE PUBLICATION', 'ALTER PUBLICATION',
                     'CREATE SUBSCRIPTION', 'ALTER SUBSCRIPTION', 'REFRESH MATERIALIZED VIEW', 'ALTER SEQUENCE',
                     'CREATE EVENT TRIGGER', 'ALTER EVENT TRIGGER')
          or not exists (
              select from pg_event_trigger_ddl_commands() c
              where c.schema_name is null or c.schema_name not in ('pg_temp', 'pipeline')
          )
    then
        return;
    end if;
    perform pipeline.write_event(null, 'w', null, 0, null, 'pipeline.ddl');
exception when others then
    raise warning 'pgreflex could not tell caches of this command: %', sqlerrm;
end
$$;
revoke execute on function pipeline.tell_ddl from public;

-- Where the installing role may not create event triggers, the pump's check of the watches looks for changes itself, a few
-- seconds later. It compares sums of what results depend on; a change of a table's statistics or pages is none.
create or replace function pipeline.tell_schema_changes() returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_seen text;
begin
    if exists (select from pg_event_trigger where evtname = 'pgreflex_tell' and evtenabled in ('A', 'O'))
       or not exists (select from pipeline.watch)
    then
        return false;
    end if;
    select md5(string_agg(s.part || ':' || s.total, ',' order by s.part)) into v_seen from (
        select 'class' as part, sum(hashtextextended(concat_ws(' ', c.oid, c.relname, c.relnamespace, c.relkind, c.relrowsecurity,
                                                     c.relnatts, c.relacl::text), 0)) as total
        from pg_class c where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relpersistence <> 't' and c.oid >= 16384
        union all
        select 'proc', sum(hashtextextended(concat_ws(' ', p.oid, p.xmin), 0)) from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace
        where p.oid >= 16384 and n.nspname <> 'pipeline' and n.nspname !~ '^pg_temp_'
        union all
        select 'rewrite', sum(hashtextextended(concat_ws(' ', r.oid, r.xmin), 0))
        from pg_rewrite r join pg_class c on c.oid = r.ev_class where r.oid >= 16384 and c.relpersistence <> 't'
        union all
        select 'type', sum(hashtextextended(concat_ws(' ', t.oid, t.typname, t.typnamespace, t.typtype), 0))
        from pg_type t where t.oid >= 16384 and t.typtype <> 'c' and t.typcategory <> 'A'
        union all
        select 'enum', sum(hashtextextended(concat_ws(' ', e.oid, e.xmin), 0)) from pg_enum e
        union all
        select 'operator', sum(hashtextextended(concat_ws(' ', o.oid, o.xmin), 0)) from pg_operator o where o.oid >= 16384
        union all
        select 'cast', sum(hashtextextended(concat_ws(' ', c.oid, c.xmin), 0)) from pg_cast c where c.oid >= 16384
        union all
        select 'schema', sum(hashtextextended(concat_ws(' ', n.oid, n.nspname, n.nspacl::text), 0))
        from pg_namespace n where n.nspname !~ '^pg_(toast_)?temp_'
        union all
        select 'search', sum(hashtextextended(concat_ws(' ', m.mapcfg, m.xmin), 0)) from pg_ts_config_map m
        union all
        select 'inherits', sum(hashtextextended(concat_ws(' ', i.inhrelid, i.inhparent), 0)) from pg_inherits i
        union all
        select 'column', sum(hashtextextended(concat_ws(' ', a.attrelid, a.attnum, a.attname, a.atttypid, a.attisdropped), 0))
        from pipeline.watch w, unnest(w.tree) t join pg_attribute a on a.attrelid = t where a.attnum > 0
    ) s;
    if exists (select from pipeline.setting s where s.name = 'schema_seen' and s.value = v_seen) then
        return false;
    end if;
    insert into pipeline.setting as s (name, value) values ('schema_seen', v_seen)
    on conflict on constraint setting_pkey do update set value = excluded.value;
    perform pipeline.write_event(null, 'w', null, 0, null, 'pipeline.ddl');
    return true;
end
$$;
revoke execute on function pipeline.tell_schema_changes from public;

do $$
begin
    if (select rolsuper from pg_roles where rolname = current_user)
       and not exists (select from pg_event_trigger where evtname = 'pgreflex_tell')
    then
        create event trigger pgreflex_tell on ddl_command_end execute function pipeline.tell_ddl();
        create event trigger pgreflex_tell_drop on sql_drop execute function pipeline.tell_ddl();
        -- restores and replicated sessions change what queries mean, too
        alter event trigger pgreflex_tell enable always;
        alter event trigger pgreflex_tell_drop enable always;
    end if;
end
$$;
