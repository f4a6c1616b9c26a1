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

-- Which triggers a relation should have for a watch: their suffix, what comes behind `create trigger NAME`, and when
-- they fire. `always`: also in sessions that set session_replication_role to replica, as restores and bulk loads do.
-- Postgres copies row triggers from a partitioned table to its partitions, with a mode of its own, so those are only
-- given to tables that hold rows.
create or replace function pipeline.triggers_of(p_watch pipeline.watch, p_relation oid)
returns table (suffix text, definition text, mode text)
language sql stable
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
    where (suffix <> 'begin' or p_watch.timing)
      and (suffix <> 'replicated'
           or p_watch.replicated and (select relkind from pg_class where oid = p_relation) = 'r')
$$;
revoke execute on function pipeline.triggers_of from public;

-- Gives a relation the triggers that it lacks, and each its mode; returns how many it touched. One that was disabled
-- by hand stays so unless p_enable.
create or replace function pipeline.create_watch_triggers(
    p_watch pipeline.watch, p_relation oid, p_enable boolean default false
) returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_row record;
    v_touched int := 0;
begin
    for v_row in
        select t.*, format('pgreflex_%s_%s', p_watch.id, t.suffix) as name, g.tgenabled as enabled
        from pipeline.triggers_of(p_watch, p_relation) t
        left join pg_trigger g on g.tgrelid = p_relation and g.tgname = format('pgreflex_%s_%s', p_watch.id, t.suffix)
        where g.tgenabled is null or (g.tgenabled = 'D' and p_enable)
           or g.tgenabled not in ('D', upper(left(t.mode, 1))::"char")
    loop
        if v_row.enabled is null then
            execute format('create trigger %I ' || v_row.definition || ' execute function pipeline.watch_%s_%s()',
                           v_row.name, p_relation::regclass, p_watch.id, v_row.suffix);
        end if;
        execute format('alter table only %s enable %s trigger %I', p_relation::regclass, v_row.mode, v_row.name);
        v_touched := v_touched + 1;
    end loop;
    return v_touched;
end
$$;
revoke execute on function pipeline.create_watch_triggers from public;

-- Triggers of a watch that nobody needs: on a table that left the tree, or of a kind that was switched off.
create or replace function pipeline.spare_triggers(p_watch pipeline.watch) returns table (relation oid, name name)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select g.tgrelid, g.tgname from pg_trigger g
    where g.tgname ~ format('^pgreflex_%s_', p_watch.id) and not g.tgisinternal
      and not exists (
          select from pipeline.relations_of(p_watch.relation) r, pipeline.triggers_of(p_watch, r) t
          where r = g.tgrelid and g.tgname = format('pgreflex_%s_%s', p_watch.id, t.suffix))
$$;
revoke execute on function pipeline.spare_triggers from public;

-- Locks a table and its partitions, in attempts of 100 ms with pauses between: a request for a lock that waits
-- makes everyone later wait behind it, so it must never wait long. Gives up after p_patience.
create or replace function pipeline.lock_gently(
    p_relation oid, p_mode text, p_patience interval default '20 seconds'
) returns void
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
                execute format('lock table only %s in %s mode', v_one::regclass, p_mode);
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
                    hint = 'Nothing was changed and nobody was held up. Try again when they have ended.';
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
    if not pg_has_role(v_class.relowner, 'usage') then
        raise insufficient_privilege using
            message = format('role %s does not own %s, and only the owner may give a table its triggers', current_user,
                             p_name),
            hint = format('Become a member: grant %I to %I', pg_get_userbyid(v_class.relowner), current_user);
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
-- Calling it again with other arguments changes the watch. Takes SHARE ROW EXCLUSIVE on the table, gently; ACCESS
-- EXCLUSIVE where timing or replicated is switched off, since dropping a trigger needs that.
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
    v_fewer boolean;
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
    v_fewer := exists (
        select from pipeline.watch w where w.relation = v_relation
        and (w.timing and not watch.timing or w.replicated and not watch.replicated));
    perform pipeline.lock_gently(v_relation, case when v_fewer then 'access exclusive' else 'share row exclusive' end);
    insert into pipeline.watch as w (relation, tag, keys, columns, timing, durable, replicated)
    values (v_relation, pipeline.tag_of(v_relation), v_keys, watch.columns, watch.timing, watch.durable,
            watch.replicated)
    on conflict on constraint watch_relation_key do update
        set keys = excluded.keys, columns = excluded.columns, timing = excluded.timing,
            durable = excluded.durable, replicated = excluded.replicated
    returning w.* into v_watch;
    perform set_config('pipeline.own_ddl', 'on', true);
    perform pipeline.create_watch_functions(v_watch);
    for v_one in select r from pipeline.relations_of(v_relation) r loop
        perform pipeline.create_watch_triggers(v_watch, v_one, p_enable => true);
    end loop;
    perform pipeline.drop_spare_triggers(v_watch);
    perform set_config('pipeline.own_ddl', 'off', true);
    update pipeline.watch w
        set tree = (select array_agg(r order by r) from pipeline.relations_of(v_relation) r)
        where w.id = v_watch.id;
    -- what happened before this moment was not reported to anybody
    perform pipeline.write_event(v_watch.id, 'w', null, 0, null, v_watch.tag);
    perform pipeline.tell_schema_changes();  -- so that the next check has something to compare with
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

-- Needs ACCESS EXCLUSIVE on the tables that have such triggers.
create or replace function pipeline.drop_spare_triggers(p_watch pipeline.watch) returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_row record;
    v_dropped int := 0;
begin
    for v_row in select * from pipeline.spare_triggers(p_watch) loop
        execute format('drop trigger %I on %s', v_row.name, v_row.relation::regclass);
        v_dropped := v_dropped + 1;
    end loop;
    return v_dropped;
end
$$;
revoke execute on function pipeline.drop_spare_triggers from public;

-- The end of a watch: its triggers, its functions, its row. What it reported and nobody has read yet keeps its name.
create or replace function pipeline.drop_watch(p_watch pipeline.watch) returns void
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
    insert into pipeline.former_watch (id, tag) values (p_watch.id, p_watch.tag);
    delete from pipeline.watch w where w.id = p_watch.id;
    perform pipeline.write_event(null, 'w', null, 0, null, p_watch.tag);
end
$$;
revoke execute on function pipeline.drop_watch from public;

-- Stop watching a table; false if it was not watched. Followers are told that the table is no longer known. Takes
-- ACCESS EXCLUSIVE on the table, gently.
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
    perform pipeline.lock_gently(v_relation, 'access exclusive');
    perform set_config('pipeline.own_ddl', 'on', true);
    perform pipeline.drop_watch(v_watch);
    perform set_config('pipeline.own_ddl', 'off', true);
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
