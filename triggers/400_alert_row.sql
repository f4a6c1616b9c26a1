-- alert_row: raises an alert for one row; installed by pipeline.alert_on
--
-- Runs inside the user's own transaction, as the owner of the schema, and only for rows for which the trigger's condition
-- holds. Cost: one savepoint, one jsonb of the row, one insert and one event. It never breaks the write: an error of its
-- own makes a WARNING and is counted in pipeline.alert_losses, as is whatever is beyond 100 rows in one transaction.
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
    v_labels jsonb := '{}';
    v_part text[];
begin
    if v_rows >= 100 then
        perform nextval('pipeline.alert_losses');
        return null;
    end if;
    perform set_config('pipeline.alert_rows', (v_rows + 1)::text, true);
    begin
        if tg_argv[3] <> '[]' or v_message ~ '\{' then
            if pipeline.foreign_cast(tg_relid) is not null then
                raise insufficient_privilege using message = format(
                    'the cast %s would run with the rights of %s', pipeline.foreign_cast(tg_relid), current_user);
            end if;
            v_row := case tg_op when 'DELETE' then to_jsonb(old) else to_jsonb(new) end;
            select coalesce(jsonb_object_agg(c, coalesce(v_row ->> c, '')), '{}') into v_labels
            from jsonb_array_elements_text(tg_argv[3]::jsonb) as c;
            select string_agg(
                case when n = 1 then p[1] else coalesce(v_row ->> p[1], '') || p[2] end, '' order by n
            ) into v_message
            from (
                select n, case
                    when n = 1 then array[piece]
                    else array[split_part(piece, '}', 1), substr(piece, strpos(piece, '}') + 1)]
                end as p
                from regexp_split_to_table(v_message, '\{') with ordinality as s (piece, n)
            ) as pieces;
        end if;
        perform pipeline.raise_alert(tg_argv[0], v_message, tg_argv[2], v_labels);
    exception when others then
        perform nextval('pipeline.alert_losses');
        raise warning 'pgreflex could not raise the alert % for %: % (%)', tg_argv[0], tg_relid::regclass, sqlerrm, sqlstate;
    end;
    return null;
end
$$;
