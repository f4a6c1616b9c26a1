-- alert_row: raises an alert for one row; installed by pipeline.alert_on
--
-- Runs inside the user's own transaction, as the owner of the schema, and only for rows for which the trigger's condition
-- holds. Cost: one savepoint, one jsonb of the row, one insert and one event. It never breaks the write: an error of its
-- own makes a WARNING and is counted in pipeline.alert_losses, as is whatever is beyond 100 rows in one transaction.
-- Labels and message are put together by plain expressions, because each query costs as much as the insert.
-- arguments: name, message, severity, the columns that are labels as a JSON array
-- locks: none that anyone waits for
create or replace function pipeline.alert_row() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_seen text := current_setting('pipeline.alert_rows', true);
    v_rows int := case when v_seen ~ '^[0-9]{1,3}$' then v_seen::int else 0 end;
    v_row jsonb;
    v_message text := tg_argv[1];
    v_names jsonb := tg_argv[3];
    v_labels jsonb := '{}';
    v_open int := strpos(tg_argv[1], '{');
    v_close int;
    v_piece text;
begin
    if v_rows >= 100 then
        perform nextval('pipeline.alert_losses');
        return null;
    end if;
    perform set_config('pipeline.alert_rows', (v_rows + 1)::text, true);
    begin
        if v_names <> '[]' or v_open > 0 then
            if exists (select from pg_cast c where c.casttarget = 'json'::regtype and c.castfunc <> 0)
                and pipeline.foreign_cast(tg_relid) is not null
            then
                raise insufficient_privilege using message = format(
                    'the cast %s would run with the rights of %s', pipeline.foreign_cast(tg_relid), current_user);
            end if;
            v_row := case tg_op when 'DELETE' then to_jsonb(old) else to_jsonb(new) end;
            for i in 0 .. jsonb_array_length(v_names) - 1 loop
                v_labels := v_labels || jsonb_build_object(v_names ->> i, coalesce(v_row ->> (v_names ->> i), ''));
            end loop;
            if v_open > 0 then
                v_piece := v_message;
                v_message := '';
                while v_open > 0 loop
                    v_close := strpos(substr(v_piece, v_open), '}') + v_open - 1;
                    v_message := v_message || left(v_piece, v_open - 1)
                        || coalesce(v_row ->> substr(v_piece, v_open + 1, v_close - v_open - 1), '');
                    v_piece := substr(v_piece, v_close + 1);
                    v_open := strpos(v_piece, '{');
                end loop;
                v_message := v_message || v_piece;
            end if;
        end if;
        perform pipeline.raise_alert(tg_argv[0], v_message, tg_argv[2], v_labels);
    exception when others then
        perform nextval('pipeline.alert_losses');
        raise warning 'pgreflex could not raise the alert % for %: % (%)', tg_argv[0], tg_relid::regclass, sqlerrm, sqlstate;
    end;
    return null;
end
$$;
