-- Reporting timings from SQL. It may stand in any transaction, so a value that cannot be used is a warning and counted, and
-- never an error.

-- One name for a name and its labels: checkout{region="eu"}, labels sorted; pipeline/core/series.py agrees.
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

-- Counts a timing that cannot be used, and tells the caller why.
create or replace function pipeline.reject_timing(
    p_asker text, p_name text, p_labels jsonb, p_ms double precision, p_many bigint
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if not current_setting('transaction_read_only')::bool then
        perform nextval('pipeline.timing_rejected') from generate_series(1, p_many);
    end if;
    raise warning '% ignored % of %: %', p_asker, case p_many when 1 then 'a timing' else p_many || ' timings' end,
        coalesce(left(p_name, 200), 'null'),
        case
            when current_setting('transaction_read_only')::bool then 'the transaction is read-only'
            when coalesce(p_name, '') = '' then 'it has no name'
            when length(p_name) > 200 then 'its name is longer than 200 characters'
            when jsonb_typeof(p_labels) <> 'object' then 'its labels are not a JSON object'
            when length(p_labels::text) > 2000 then 'its labels are longer than 2000 characters'
            when p_ms is null then 'it has no value'
            else format('%s is no duration in milliseconds', p_ms)
        end;
end
$$;
revoke execute on function pipeline.reject_timing(text, text, jsonb, double precision, bigint) from public;

-- Puts usable timings into the inbox. Now and then it looks whether anybody still empties it: without, it would fill the disk.
create or replace function pipeline.keep_timings(p_name text, p_ms double precision[], p_labels jsonb) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_gate bigint := (select last_value from pipeline.timing_gate);
begin
    if random() * 1000 < cardinality(p_ms) then
        v_gate := pipeline.gauge_timing_inbox();
    end if;
    case v_gate
        when 0 then
            insert into pipeline.timing_inbox_0 values (pg_current_xact_id(), pipeline.now(), p_name, p_labels, p_ms);
        when 1 then
            insert into pipeline.timing_inbox_1 values (pg_current_xact_id(), pipeline.now(), p_name, p_labels, p_ms);
        else
            perform nextval('pipeline.timing_dropped') from unnest(p_ms);
    end case;
end
$$;
revoke execute on function pipeline.keep_timings(text, double precision[], jsonb) from public;

-- Sets the gate to full where the table that is written has grown over p_full bytes; returns the gate.
create or replace function pipeline.gauge_timing_inbox(p_full bigint default 128 * 1024 * 1024) returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
    select case
        when g.last_value < 2 and pg_relation_size(format('pipeline.timing_inbox_%s', g.last_value)::regclass) > p_full
        then setval('pipeline.timing_gate', g.last_value + 2)
        else g.last_value
    end
    from pipeline.timing_gate as g
$$;
revoke execute on function pipeline.gauge_timing_inbox(bigint) from public;

-- Count `ms` in the series `name` (with labels: name{key="value"}), once this transaction commits.
create or replace function pipeline.record_timing(name text, ms double precision, labels jsonb default '{}')
returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if record_timing.ms between 0 and 1e12 and record_timing.name <> '' and length(record_timing.name) <= 200
        and (
            record_timing.labels is null or record_timing.labels = '{}'
            or jsonb_typeof(record_timing.labels) = 'object' and length(record_timing.labels::text) <= 2000
        )
        and not current_setting('transaction_read_only')::bool
    then
        perform pipeline.keep_timings(record_timing.name, array[record_timing.ms], record_timing.labels);
    else
        perform pipeline.reject_timing(
            'record_timing', record_timing.name, record_timing.labels, record_timing.ms, 1
        );
    end if;
end
$$;

-- The same for many values of one series.
create or replace function pipeline.record_timings(name text, ms double precision[], labels jsonb default '{}')
returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_good double precision[];
    v_bad double precision;
    v_many bigint;
begin
    if cardinality(record_timings.ms) = 0 then
        return;
    end if;
    if record_timings.ms is not null and record_timings.name <> '' and length(record_timings.name) <= 200
        and (
            record_timings.labels is null
            or jsonb_typeof(record_timings.labels) = 'object' and length(record_timings.labels::text) <= 2000
        )
        and not current_setting('transaction_read_only')::bool
    then
        select array_agg(v) filter (where v between 0 and 1e12),
            max(v) filter (where not v between 0 and 1e12), count(*) filter (where v between 0 and 1e12 is not true)
        into v_good, v_bad, v_many
        from unnest(record_timings.ms) as v;
        if v_good is not null then
            perform pipeline.keep_timings(record_timings.name, v_good, record_timings.labels);
        end if;
    else
        v_many := coalesce(cardinality(record_timings.ms), 1);
    end if;
    if v_many > 0 then
        perform pipeline.reject_timing('record_timings', record_timings.name, record_timings.labels, v_bad, v_many);
    end if;
end
$$;
