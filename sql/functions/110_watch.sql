-- watch, unwatch, watched: which tables report their changes.

-- The name under which a table's changes are known: `orders`, or `shop.orders` outside the schema public.
create or replace function pipeline.tag_of(p_relation oid) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select case n.nspname when 'public' then c.relname::text else n.nspname || '.' || c.relname end
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.oid = p_relation
$$;
revoke execute on function pipeline.tag_of from public;

-- The relation itself and everything that inherits from it: a statement fires only the triggers of the table that
-- it names, so partitions, and their partitions, need triggers of their own.
create or replace function pipeline.relations_of(p_relation oid) returns setof oid
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with recursive tree as (
        select p_relation as relation
        union
        select i.inhrelid from pg_inherits i join tree t on i.inhparent = t.relation
    )
    select t.relation from tree t join pg_class c on c.oid = t.relation where c.relkind in ('r', 'p')
$$;
revoke execute on function pipeline.relations_of from public;

-- Which triggers a relation should have for a watch: their suffix, and what comes behind `create trigger NAME`.
create or replace function pipeline.triggers_of(p_watch pipeline.watch)
returns table (suffix text, definition text, mode text)
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select * from (values
        ('insert', 'after insert on %s referencing new table as new_rows for each statement', 'always'),
        ('update', 'after update on %s referencing old table as old_rows new table as new_rows for each statement',
         'always'),
        ('delete', 'after delete on %s referencing old table as old_rows for each statement', 'always'),
        ('truncate', 'after truncate on %s for each statement', 'always'),
        ('begin', 'before insert or update or delete on %s for each statement', 'always'),
        ('replicated', 'after insert or update or delete on %s for each row', 'replica')
    ) t (suffix, definition, mode)
    where (suffix <> 'begin' or p_watch.timing) and (suffix <> 'replicated' or p_watch.replicated)
$$;
revoke execute on function pipeline.triggers_of from public;

-- Gives a relation the triggers that it lacks; returns how many. `always`: they also fire in sessions that set
-- session_replication_role to replica, as restores and bulk loads do.
create or replace function pipeline.create_watch_triggers(p_watch pipeline.watch, p_relation oid) returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_row record;
    v_name text;
    v_made int := 0;
begin
    for v_row in select * from pipeline.triggers_of(p_watch) loop
        v_name := format('pgreflex_%s_%s', p_watch.id, v_row.suffix);
        continue when exists (select from pg_trigger where tgrelid = p_relation and tgname = v_name);
        execute format('create trigger %I ' || v_row.definition || ' execute function pipeline.watch_%s_%s()',
                       v_name, p_relation::regclass, p_watch.id, v_row.suffix);
        execute format('alter table only %s enable %s trigger %I', p_relation::regclass, v_row.mode, v_name);
        v_made := v_made + 1;
    end loop;
    return v_made;
end
$$;
revoke execute on function pipeline.create_watch_triggers from public;

-- Locks a table and its partitions against writers, in attempts of 100 ms with pauses between: a request for a lock
-- that waits makes every later writer wait behind it, so it must never wait long. Gives up after p_patience.
create or replace function pipeline.lock_gently(p_relation oid, p_patience interval default '20 seconds') returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_deadline constant timestamptz := clock_timestamp() + p_patience;
    v_before constant text := current_setting('lock_timeout');
    v_one oid;
    v_holders text;
begin
    loop
        begin
            perform set_config('lock_timeout', '100ms', true);
            for v_one in select r from pipeline.relations_of(p_relation) r order by r loop
                execute format('lock table only %s in share row exclusive mode', v_one::regclass);
            end loop;
            perform set_config('lock_timeout', v_before, true);
            return;
        exception when lock_not_available then
            if clock_timestamp() > v_deadline then
                select string_agg(distinct pid::text, ', ') into v_holders
                from pg_locks
                where relation in (select r from pipeline.relations_of(p_relation) r) and granted
                  and pid <> pg_backend_pid();
                raise lock_not_available using
                    message = format('%s is in use by other transactions (process %s)', p_relation::regclass,
                                     coalesce(v_holders, 'unknown')),
                    hint = 'Nothing was changed and no writer was held up. Try again when they have ended.';
            end if;
        end;
        perform pg_sleep(0.1 + random() * 0.3);
    end loop;
end
$$;
revoke execute on function pipeline.lock_gently from public;

create or replace function pipeline.check_watchable(p_name text, p_relation oid) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    v_class pg_class;
    v_schema text;
    v_refusal text;
begin
    select * into v_class from pg_class where oid = p_relation;
    if not found then
        raise undefined_table using
            message = format('there is no table %s', p_name),
            hint = 'Write it as schema.table; names with capitals or blanks need double quotes.';
    end if;
    select nspname into v_schema from pg_namespace where oid = v_class.relnamespace;
    v_refusal := case
        when v_class.relkind = 'v' then 'is a view; watch the tables that it reads'
        when v_class.relkind = 'm' then 'is a materialized view, which fires no triggers'
        when v_class.relkind = 'f' then 'is a foreign table; watch it on its own server'
        when v_class.relkind not in ('r', 'p') then 'is not a table'
        when v_class.relpersistence = 't' then 'is a temporary table, which only one session sees'
        when v_schema in ('pg_catalog', 'information_schema') then 'is a system catalog, which fires no triggers'
        when v_schema = 'pipeline' then 'belongs to pgreflex itself'
    end;
    if v_refusal is not null then
        raise wrong_object_type using message = format('%s %s', p_name, v_refusal),
            hint = 'Ordinary and partitioned tables can be watched.';
    end if;
end
$$;
revoke execute on function pipeline.check_watchable from public;

create or replace function pipeline.check_columns(p_relation oid, p_columns text[]) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    v_missing text;
begin
    select c into v_missing from unnest(p_columns) c
    where not exists (select from pg_attribute where attrelid = p_relation and attname = c
                      and attnum > 0 and not attisdropped)
    limit 1;
    if v_missing is not null then
        raise undefined_column using
            message = format('%s has no column %s', p_relation::regclass, quote_ident(v_missing)),
            hint = format('Its columns are: %s.', (
                select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
                where attrelid = p_relation and attnum > 0 and not attisdropped));
    end if;
    -- triggers see no value in them, so a change would go unnoticed; the letter is unknown before Postgres 18
    select c into v_missing from unnest(p_columns) c
    where exists (select from pg_attribute where attrelid = p_relation and attname = c and attgenerated = 'v')
    limit 1;
    if v_missing is not null then
        raise feature_not_supported using
            message = format('column %s of %s is virtual, and triggers do not see its value',
                             quote_ident(v_missing), p_relation::regclass),
            hint = 'Name the columns from which it is computed.';
    end if;
end
$$;
revoke execute on function pipeline.check_columns from public;

-- Watch a table: from now on each committed change is an event of the feed. Returns the tag.
--   keys        the columns that name a row; null takes the primary key, '{}' names only the table
--   columns     an update counts only if one of these (or a key) changed; null counts every update
--   timing      how long each statement takes is reported too
--   durable     events survive a crash of the server, at the price of a logged row each
--   replicated  report rows that logical replication applies, one event a row
-- Calling it again with other arguments changes the watch. Takes SHARE ROW EXCLUSIVE on the table, gently.
create or replace function pipeline.watch(
    relation text, keys text[] default null, columns text[] default null,
    timing boolean default false, durable boolean default false, replicated boolean default false
) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_relation oid := pipeline.relation_named(relation);
    v_keys text[] := keys;
    v_watch pipeline.watch;
    v_one oid;
begin
    perform pipeline.check_watchable(relation, v_relation);
    if v_keys is null then
        select coalesce(array_agg(a.attname::text order by k.n), '{}') into v_keys
        from pg_index i, unnest(i.indkey) with ordinality k(attnum, n)
        join pg_attribute a on a.attnum = k.attnum
        where i.indrelid = v_relation and i.indisprimary and a.attrelid = v_relation;
    end if;
    perform pipeline.check_columns(v_relation, v_keys || coalesce(columns, '{}'));
    perform pipeline.lock_gently(v_relation);
    insert into pipeline.watch as w (relation, tag, keys, columns, timing, durable, replicated)
    values (v_relation, pipeline.tag_of(v_relation), v_keys, watch.columns, watch.timing, watch.durable,
            watch.replicated)
    on conflict on constraint watch_relation_key do update
        set keys = excluded.keys, columns = excluded.columns, timing = excluded.timing,
            durable = excluded.durable, replicated = excluded.replicated
    returning w.* into v_watch;
    perform set_config('pipeline.own_ddl', 'on', true);
    perform pipeline.drop_watch_triggers(v_watch);
    perform pipeline.create_watch_functions(v_watch);
    for v_one in select r from pipeline.relations_of(v_relation) r loop
        perform pipeline.create_watch_triggers(v_watch, v_one);
    end loop;
    perform set_config('pipeline.own_ddl', 'off', true);
    update pipeline.watch w
        set tree = (select array_agg(r order by r) from pipeline.relations_of(v_relation) r)
        where w.id = v_watch.id;
    -- what happened before this moment was not reported to anybody
    perform pipeline.write_event(v_watch.id, 'w', null, 0, null, v_watch.tag);
    return v_watch.tag;
end
$$;
revoke execute on function pipeline.watch from public;

-- The relation that a text names, or null; without a schema it is looked for in public. Text that is not a valid
-- identifier is tried as it stands.
create or replace function pipeline.relation_named(p_name text) returns oid
language plpgsql stable
set search_path = pg_catalog, public, pg_temp
as $$
begin
    return to_regclass(p_name);
exception when others then
    return to_regclass(quote_ident(p_name));
end
$$;
revoke execute on function pipeline.relation_named from public;

create or replace function pipeline.drop_watch_triggers(p_watch pipeline.watch) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_row record;
begin
    for v_row in
        select tgrelid, tgname from pg_trigger
        where tgname ~ format('^pgreflex_%s_', p_watch.id) and not tgisinternal
    loop
        execute format('drop trigger %I on %s', v_row.tgname, v_row.tgrelid::regclass);
    end loop;
    for v_row in
        select p.oid::regprocedure as signature from pg_proc p
        where p.pronamespace = 'pipeline'::regnamespace and p.proname ~ format('^watch_%s_', p_watch.id)
    loop
        execute format('drop function %s', v_row.signature);
    end loop;
end
$$;
revoke execute on function pipeline.drop_watch_triggers from public;

-- Stop watching a table; false if it was not watched. Followers are told that the table is no longer known.
create or replace function pipeline.unwatch(relation text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_relation oid := pipeline.relation_named(relation);
    v_watch pipeline.watch;
begin
    if v_relation is null then
        perform pipeline.check_watchable(relation, v_relation);
    end if;
    select w.* into v_watch from pipeline.watch w where w.relation = v_relation;
    if not found then
        return false;
    end if;
    perform pipeline.lock_gently(v_relation);
    perform set_config('pipeline.own_ddl', 'on', true);
    perform pipeline.drop_watch_triggers(v_watch);
    perform set_config('pipeline.own_ddl', 'off', true);
    delete from pipeline.watch w where w.id = v_watch.id;
    perform pipeline.write_event(null, 'w', null, 0, null, v_watch.tag);
    return true;
end
$$;
revoke execute on function pipeline.unwatch from public;

-- Every watched table, and why a watch may not report everything.
create or replace function pipeline.watched()
returns table (relation text, keys text[], columns text[], timing boolean, durable boolean, problem text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(pipeline.tag_of(w.relation), w.tag), w.keys, w.columns, w.timing, w.durable,
           pipeline.watch_problem(w)
    from pipeline.watch w
    order by 1
$$;
