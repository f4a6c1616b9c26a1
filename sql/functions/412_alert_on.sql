-- alert_on: from now on each row that `op` touches in a table and for which `when` holds raises an alert; returns the
-- name of the trigger
--
-- op: insert, update, delete, or several with `or` between. when: a condition on new and old, as of a trigger; null for
-- every row. It is part of the write, as a check constraint is: one that fails, by a division for instance, fails the write.
-- message: {column} stands for the row's own value. labels: columns whose values tell the instances apart. name: of the
-- alert; the table and op, when null. Calling it again with the same name replaces the trigger; alert_off ends it.
-- Partitions raise alerts, too. The caller needs the TRIGGER privilege on the table.
-- locks: SHARE ROW EXCLUSIVE on the table, tried for 50 ms at a time so that nobody queues behind the wait
create or replace function pipeline.alert_on(
    tbl regclass,
    op text,
    "when" text default null,
    name text default null,
    message text default null,
    severity text default 'warning',
    labels text[] default '{}'
) returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    v_kind "char" := (select c.relkind from pg_class c where c.oid = tbl);
    v_before text := current_setting('lock_timeout');
    v_name text := coalesce(alert_on.name, tbl::text || ' ' || alert_on.op);
    v_message text := coalesce(alert_on.message, v_name);
    v_trigger text := 'pipeline_alert_' || case when octet_length(v_name) > 48 then md5(v_name) else v_name end;
    v_cursor refcursor;
    v_missing text;
    v_tries int := 0;
begin
    if coalesce(alert_on.op, '') !~ '^(insert|update|delete)( or (insert|update|delete))*$' then
        raise exception 'op must be insert, update, delete, or several with or between, not %', coalesce(alert_on.op, 'null')
            using errcode = 'invalid_parameter_value';
    elsif coalesce(v_kind not in ('r', 'p'), true) then
        raise exception '% is not a table', tbl using errcode = 'wrong_object_type';
    elsif coalesce(alert_on.severity, '') not in ('info', 'warning', 'critical') then
        raise exception 'alert %: there is no severity %', v_name, coalesce(alert_on.severity, 'null')
            using errcode = 'invalid_parameter_value', hint = 'Severities are info, warning and critical.';
    elsif v_name = '' or length(v_name) > 200 then
        raise exception 'an alert needs a name of 1 to 200 characters' using errcode = 'invalid_parameter_value';
    end if;
    select c.name into v_missing
    from (
        select unnest(coalesce(alert_on.labels, '{}'))
        union all select m[1] from regexp_matches(v_message, '\{([^{}]*)\}', 'g') as m
    ) as c (name)
    where not exists (
        select from pg_attribute a where a.attrelid = tbl and a.attname = c.name and a.attnum > 0 and not a.attisdropped
    )
    limit 1;
    if v_missing is not null then
        raise exception 'alert %: % has no column %', v_name, tbl, v_missing
            using errcode = 'undefined_column', hint = 'Labels, and what stands in braces in the message, are columns.';
    end if;
    if alert_on."when" is not null then
        -- A cursor takes a single statement, so that nothing but a condition can come behind `when`; it fetches nothing.
        open v_cursor for execute format(
            'select from %1$s as new cross join %1$s as old where (%2$s)', tbl, alert_on."when"
        );
        close v_cursor;
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
        'create or replace trigger %I after %s on %s for each row %s execute function pipeline.alert_row(%L, %L, %L, %L)',
        v_trigger, alert_on.op, tbl, case when alert_on."when" is null then '' else format('when (%s)', alert_on."when") end,
        v_name, v_message, alert_on.severity, to_jsonb(coalesce(alert_on.labels, '{}'))::text
    );
    return v_trigger;
end
$$;

-- alert_off: ends what alert_on began; returns whether there was anything. What fires goes on until it is resolved.
-- locks: ACCESS EXCLUSIVE on the table, waiting at most 5 s for it
create or replace function pipeline.alert_off(tbl regclass, name text) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_before text := current_setting('lock_timeout');
    v_trigger text := 'pipeline_alert_'
        || case when octet_length(alert_off.name) > 48 then md5(alert_off.name) else alert_off.name end;
begin
    if not exists (select from pg_trigger t where t.tgrelid = tbl and t.tgname = v_trigger) then
        return false;
    end if;
    perform set_config('lock_timeout', '5s', true);
    execute format('drop trigger %I on %s', v_trigger, tbl);
    perform set_config('lock_timeout', v_before, true);
    return true;
end
$$;
