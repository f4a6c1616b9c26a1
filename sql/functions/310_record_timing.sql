-- Reporting a timing from SQL. It may stand in any transaction, so a value that cannot be used is a warning and
-- never an error.

-- One name for a name and its labels: checkout{region="eu"}, labels sorted; pipeline/core/window.py agrees.
create or replace function pipeline.series_name(p_name text, p_labels jsonb) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select p_name || coalesce(
        (
            select '{' || string_agg(format('%s="%s"', l.key, l.value), ',' order by l.key collate "C") || '}'
            from jsonb_each_text(p_labels) as l
        ),
        ''
    )
$$;

-- Count `ms` in the series `name` (with labels: name{key="value"}), once this transaction commits.
create or replace function pipeline.record_timing(name text, ms double precision, labels jsonb default '{}')
returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_labels jsonb := coalesce(record_timing.labels, '{}');
    v_wrong text;
begin
    v_wrong := case
        when record_timing.name is null or record_timing.name = '' then 'it has no name'
        when jsonb_typeof(v_labels) <> 'object' then 'its labels are not a JSON object'
        when length(pipeline.series_name(record_timing.name, v_labels)) > 200
            then 'its name and labels are longer than 200 characters'
        when record_timing.ms is null then 'it has no value'
        when record_timing.ms = 'NaN' or record_timing.ms = 'Infinity' or record_timing.ms < 0
            then format('%s is no duration in milliseconds', record_timing.ms)
    end;
    if v_wrong is not null then
        raise warning 'record_timing ignored the timing %: %', coalesce(left(record_timing.name, 200), 'null'), v_wrong;
        return;
    end if;
    perform pipeline.emit(
        'pipeline.timing',
        jsonb_build_object('name', record_timing.name, 'ms', record_timing.ms, 'labels', v_labels)::text
    );
end
$$;
