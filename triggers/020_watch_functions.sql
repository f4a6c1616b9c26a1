-- The trigger functions of one watch, generated, so that their statements are planned once a session.
--
-- For watch 7 these are pipeline.watch_7_insert, _update, _delete, _truncate, and where asked for _begin (timing)
-- and _replicated (rows applied by logical replication, where statement triggers do not fire).
--
-- Cost a statement, measured by `make bench-feed`: one scan of the transition table and what pipeline.write_statements says.
-- The scan stands in a block of its own that catches everything: if a key column was renamed, the event names the
-- whole table and the user's write goes through. The block writes nothing, so it takes no transaction id.

-- The text of a column. It must call nothing but the type's own output function, for it runs with the rights of this
-- schema's owner: `::text` would call a cast that the owner of the type can make, and fill with what he likes. The types
-- whose cast reads otherwise than their output are cast as long as the column still has that type.
create or replace function pipeline.text_expression(p_relation oid, p_alias text, p_column text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce((
        select case
            when a.atttypid = any (array['bool', 'inet', 'cidr', 'bpchar']::regtype[]) then
                format('case when pg_typeof(%1$s) = %2$L::regtype then %1$s::text else concat(%1$s) end', x, a.atttypid::regtype)
            when a.attnotnull then format('concat(%s)', x)
        end
        from pg_attribute a where a.attrelid = p_relation and a.attname = p_column and not a.attisdropped
    ), format('case when %1$s is not null then concat(%1$s) end', x))
    from (select format('%s.%I', p_alias, p_column)) e(x)
$$;
revoke execute on function pipeline.text_expression from public;

create or replace function pipeline.key_expression(p_relation oid, p_alias text, p_columns text[]) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    -- a join by comma is ambiguous for texts with commas; two keys that look alike are both invalidated
    select case cardinality(p_columns)
        when 0 then 'null::text'
        when 1 then pipeline.text_expression(p_relation, p_alias, p_columns[1])
        else (select 'concat_ws('','', ' || string_agg(pipeline.text_expression(p_relation, p_alias, c), ', ' order by n) || ')'
              from unnest(p_columns) with ordinality u(c, n))
    end
$$;
revoke execute on function pipeline.key_expression from public;

create or replace function pipeline.row_expression(p_alias text, p_columns text[]) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    -- the text of a row calls the output functions of its columns
    select coalesce('row(' || string_agg(format('%s.%I', p_alias, c), ', ' order by n) || ')::text', '''''')
    from unnest(p_columns) with ordinality u(c, n)
$$;
revoke execute on function pipeline.row_expression from public;

-- The expression of all keys, and the statement that counts rows and gathers keys where there may be many. More than
-- 10,000 rows are not looked through, more than 256 keys not named: both mean the whole table.
create or replace function pipeline.scan_statement(p_watch pipeline.watch, p_op text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    v_old constant text := pipeline.key_expression(p_watch.relation, 'o', p_watch.keys);
    v_new constant text := pipeline.key_expression(p_watch.relation, 'n', p_watch.keys);
    v_count constant text := 'select count(*)::int as n from '
        || case p_op when 'delete' then 'old_rows' else 'new_rows' end;
    v_checks constant text := $c$
                        if v_rows = 0 then
                            return null;
                        end if;
                        if cardinality(v_keys) > 256 then
                            v_keys := null;
                        end if;$c$;
    v_keys text;
begin
    if p_op = 'update' and p_watch.columns is not null then
        -- rows whose key or declared columns differ, in either direction; as text, since not every type compares
        v_keys := format(
            '(select %1$s as k, %2$s as c from new_rows n except all select %3$s, %4$s from old_rows o)'
            ' union all (select %3$s, %4$s from old_rows o except all select %1$s, %2$s from new_rows n)',
            v_new, pipeline.row_expression('n', p_watch.columns),
            v_old, pipeline.row_expression('o', p_watch.columns));
        return format(
            'with d as materialized (%s) select'
            ' case when r.n > 10000 then r.n else (select ((count(*) + 1) / 2)::int from d) end,'
            ' case when r.n <= 10000 then (select array_agg(k) from (select distinct k from d'
            ' where k is not null limit 257) u) end into v_rows, v_keys from (%s) r;',
            v_keys, v_count) || v_checks;
    end if;
    if cardinality(p_watch.keys) = 0 then
        return format('select r.n into v_rows from (%s) r;', v_count) || v_checks;
    end if;
    v_keys := case p_op
        when 'insert' then format('select %s as k from new_rows n', v_new)
        when 'delete' then format('select %s as k from old_rows o', v_old)
        else format('select %s as k from old_rows o union all select %s from new_rows n', v_old, v_new)
    end;
    return format(
        'select r.n, case when r.n <= 10000 then (select array_agg(k) from (select distinct k from (%s) d'
        ' where k is not null limit 257) u) end into v_rows, v_keys from (%s) r;',
        v_keys, v_count) || v_checks;
end
$$;
revoke execute on function pipeline.scan_statement from public;

-- The statement that is tried first: it reads the keys of the one row that most statements change, and fails for none
-- or several. A plain scan of a transition table costs a quarter of one that aggregates.
create or replace function pipeline.first_statement(p_watch pipeline.watch, p_op text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select case
        when cardinality(p_watch.keys) = 0 or (p_op = 'update' and p_watch.columns is not null) then
            pipeline.scan_statement(p_watch, p_op)
        when p_op = 'update' then format(
            'select case when o.k = n.k then array[o.k] else nullif(array_remove(array[o.k, n.k], null), %L) end'
            ' into strict v_keys from (select %s as k from old_rows o) o, (select %s as k from new_rows n) n;',
            '{}', v_old, v_new)
        else format(
            'select case when r.k is not null then array[r.k] end into strict v_keys from (select %s as k from %s) r;',
            case p_op when 'insert' then v_new else v_old end,
            case p_op when 'insert' then 'new_rows n' else 'old_rows o' end)
    end
    from (select pipeline.key_expression(p_watch.relation, 'o', p_watch.keys),
                 pipeline.key_expression(p_watch.relation, 'n', p_watch.keys)) e(v_old, v_new)
$$;
revoke execute on function pipeline.first_statement from public;

-- Whether the text of a key or declared column may depend on the writer's session; everybody has to see the same keys.
-- Types made of others (arrays, ranges, domains, composites) count as such, whatever they are made of.
create or replace function pipeline.reads_unlike(p_watch pipeline.watch) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select from pg_attribute a join pg_type t on t.oid = a.atttypid
        where a.attrelid = p_watch.relation and a.attname = any (p_watch.keys || coalesce(p_watch.columns, '{}'))
          and t.typtype <> 'e'
          and a.atttypid <> all (array[
              'int2', 'int4', 'int8', 'numeric', 'text', 'varchar', 'bpchar', 'name', 'uuid', 'bool', 'json', 'jsonb',
              'inet', 'cidr', 'oid']::regtype[]))
$$;
revoke execute on function pipeline.reads_unlike from public;

create or replace function pipeline.create_watch_functions(p_watch pipeline.watch) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_op text;
    v_clock constant text := format('pipeline.began_%s', p_watch.id);
    v_pinned text := '';
begin
    if pipeline.reads_unlike(p_watch) then
        v_pinned := 'set timezone = ''UTC'' set datestyle = ''ISO, YMD'' set intervalstyle = ''iso_8601'''
            ' set bytea_output = ''hex'' set extra_float_digits = 1 set lc_monetary = ''C''';
    end if;
    if p_watch.timing then
        -- a stack, because a statement may run inside a trigger of another on the same table
        execute format($f$
            create or replace function pipeline.watch_%s_begin() returns trigger
            language plpgsql security definer set search_path = pg_catalog, pg_temp
            as $body$
            begin
                perform set_config(%2$L, concat_ws(',', nullif(current_setting(%2$L, true), ''),
                                   extract(epoch from clock_timestamp())), true);
                return null;
            end
            $body$ $f$, p_watch.id, v_clock);
    end if;
    foreach v_op in array array['insert', 'update', 'delete'] loop
        execute format($f$
            create or replace function pipeline.watch_%1$s_%2$s() returns trigger
            language plpgsql security definer set search_path = pg_catalog, pg_temp %3$s
            as $body$
            declare
                v_rows int;
                v_keys text[];
                v_ms real;
                v_stack text[];
                v_gate bigint;
            begin
                %4$s
                begin
                    %5$s
                exception
                    when no_data_found then
                        return null;
                    when too_many_rows then
                        begin
                            %6$s
                        exception when others then
                            v_rows := 1;
                            v_keys := null;
                        end;
                    when others then
                        v_rows := 1;
                        v_keys := null;
                end;
                %7$s
                return null;
            end
            $body$ $f$,
            p_watch.id, v_op, v_pinned,
            case when p_watch.timing then format($t$
                v_stack := string_to_array(nullif(current_setting(%1$L, true), ''), ',');
                if v_stack is not null then
                    v_ms := 1000 * (extract(epoch from clock_timestamp()) - v_stack[cardinality(v_stack)]::numeric);
                    perform set_config(%1$L, array_to_string(v_stack[:cardinality(v_stack) - 1], ','), true);
                end if;$t$, v_clock) else '' end,
            pipeline.first_statement(p_watch, v_op), pipeline.scan_statement(p_watch, v_op),
            pipeline.write_statements(
                p_watch.durable, format('%s, %L, v_keys, coalesce(v_rows, 1), v_ms, null, null', p_watch.id, left(v_op, 1))));
    end loop;
    execute format($f$
        create or replace function pipeline.watch_%1$s_truncate() returns trigger
        language plpgsql security definer set search_path = pg_catalog, pg_temp
        as $body$
        begin
            perform pipeline.write_event(%1$s, 't', null, 0, null, v_durable => %2$L);
            return null;
        end
        $body$ $f$, p_watch.id, p_watch.durable);
    if p_watch.replicated then
        execute format($f$
            create or replace function pipeline.watch_%1$s_replicated() returns trigger
            language plpgsql security definer set search_path = pg_catalog, pg_temp %2$s
            as $body$
            declare
                v_keys text[];
            begin
                begin
                    if tg_op <> 'DELETE' then
                        v_keys := array_append(v_keys, (select %3$s from (select new.*) n));
                    end if;
                    if tg_op <> 'INSERT' then
                        v_keys := array_append(v_keys, (select %4$s from (select old.*) o));
                    end if;
                    select array_agg(distinct k) into v_keys from unnest(v_keys) k where k is not null;
                exception when others then
                    v_keys := null;
                end;
                perform pipeline.write_event(%1$s, lower(left(tg_op, 1))::"char", nullif(v_keys, '{}'), 1, null,
                                             v_durable => %5$L);
                return null;
            end
            $body$ $f$, p_watch.id, v_pinned, pipeline.key_expression(p_watch.relation, 'n', p_watch.keys),
            pipeline.key_expression(p_watch.relation, 'o', p_watch.keys), p_watch.durable);
    end if;
    for v_op in select unnest(array['insert', 'update', 'delete', 'truncate']
                              || case when p_watch.timing then array['begin'] else '{}' end
                              || case when p_watch.replicated then array['replicated'] else '{}' end)
    loop
        execute format('revoke execute on function pipeline.watch_%s_%s() from public', p_watch.id, v_op);
    end loop;
end
$$;
revoke execute on function pipeline.create_watch_functions from public;

-- Watches that an earlier version made get the functions of this one.
do $$
begin
    perform pipeline.create_watch_functions(w) from pipeline.watch w;
end
$$;
