-- Follows DDL at once, where the installing role may create event triggers (that takes a superuser).
--
-- It runs inside the user's own DDL transaction, so it must never fail it: whatever goes wrong becomes a warning,
-- and the pump's periodic check does the work instead. Cost: one look-up in pipeline.watch for each DDL command.
create or replace function pipeline.follow_ddl() returns event_trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    -- our own DDL on watched tables needs no look
    if current_setting('pipeline.own_ddl', true) is distinct from 'on' and exists (select from pipeline.watch) then
        perform pipeline.check_watches();
    end if;
exception when others then
    raise warning 'pgreflex could not follow this command at once and will look again: %', sqlerrm;
end
$$;
revoke execute on function pipeline.follow_ddl from public;

do $$
begin
    if (select rolsuper from pg_roles where rolname = current_user)
       and not exists (select from pg_event_trigger where evtname = 'pgreflex_ddl')
    then
        create event trigger pgreflex_ddl on ddl_command_end
            when tag in ('ALTER TABLE', 'CREATE TABLE', 'CREATE TABLE AS', 'ALTER SCHEMA')
            execute function pipeline.follow_ddl();
        create event trigger pgreflex_drop on sql_drop
            when tag in ('DROP TABLE', 'DROP SCHEMA', 'DROP TRIGGER', 'ALTER TABLE')
            execute function pipeline.follow_ddl();
    end if;
end
$$;
