-- Writing timings, for processes whose role may use the schema and no more.

-- The ids of series; those that are new are noted. p_series: each once, p_labels: JSON, all four in one order.
create or replace function pipeline.timing_ids(p_series text[], p_sources text[], p_names text[], p_labels text[])
returns table (series text, id int)
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    with given as (
        select g.*, k.id, k.last_at
        from unnest(p_series, p_sources, p_names, p_labels) as g (series, source, name, labels)
        left join pipeline.timing_series as k on k.series = g.series
    ),
    new as (
        insert into pipeline.timing_series as t (series, source, name, labels, first_at, last_at)
        select g.series, g.source, g.name, g.labels::jsonb, pipeline.now(), pipeline.now()
        from given as g
        where g.id is null
        order by g.series collate "C"
        on conflict (series) do update set last_at = greatest(t.last_at, excluded.last_at)
        returning t.id, t.series
    ),
    touched as (
        update pipeline.timing_series as t
        set last_at = pipeline.now()
        where t.id in (
            select o.id
            from pipeline.timing_series as o
            where o.id in (select g.id from given as g where g.last_at < pipeline.now() - interval '1 hour')
            for update skip locked
        )
    )
    select g.series, g.id from given as g where g.id is not null
    union all
    select n.series, n.id from new as n
$$;

-- One batch: what a process saw in one window of five seconds, starting at p_start (in seconds since the epoch). The
-- arrays are in one order, p_sizes says how many of p_centroids belong to each. One that is there already stays as it is.
-- Whoever may use the schema may call it, so what could not be read again is refused here: one such digest would hold up the
-- roll-up of all.
create or replace function pipeline.write_timings(
    p_writer text, p_number bigint, p_start double precision, p_series int[], p_counts bigint[],
    p_sums double precision[], p_lows double precision[], p_highs double precision[],
    p_errors bigint[], p_overs bigint[], p_rows bigint[], p_sizes int[], p_centroids smallint[]
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if (
        select p_start between 0 and 1e10
            and sum(d.size) = cardinality(p_centroids) and array_position(p_centroids, null) is null
            and bool_and(coalesce(
                d.series is not null and d.count between 1 and 1e12 and d.sum between 0 and 1e24
                and d.low between 0 and d.high and d.high <= 1e12
                and d.errors between 0 and d.count and d.over_count between 0 and d.count
                and d.row_count between -1e15 and 1e15
                and d.size >= 2 and p_centroids[d.upto - d.size + 1] between 0 and 2
                -- of the kinds of pipeline/core/centroids.py the second has a weight of its own for each mean
                and not (p_centroids[d.upto - d.size + 1] = 1 and d.size % 2 = 0)
                and not (p_centroids[d.upto - d.size + 1] = 2 and d.size < 3),
                false))
        from (
            select u.*, sum(u.size) over (order by u.place)::int as upto
            from unnest(p_series, p_counts, p_sums, p_lows, p_highs, p_errors, p_overs, p_rows, p_sizes)
                with ordinality as u (series, count, sum, low, high, errors, over_count, row_count, size, place)
        ) as d
    ) is not true then
        raise exception 'a batch of timings cannot be read' using errcode = 'invalid_parameter_value';
    end if;
    insert into pipeline.timing_batch (writer, number, start, written_at, series, digests)
    select p_writer::uuid, p_number, to_timestamp(p_start), pipeline.now(),
        array_agg(d.series order by d.place),
        array_agg(
            row(
                d.series, d.count, d.sum, d.low, d.high, d.errors, d.over_count, d.row_count,
                p_centroids[d.upto - d.size + 1 : d.upto]
            )::pipeline.timing_digest
            order by d.place
        )
    from (
        select u.*, sum(u.size) over (order by u.place)::int as upto
        from unnest(p_series, p_counts, p_sums, p_lows, p_highs, p_errors, p_overs, p_rows, p_sizes)
            with ordinality as u (series, count, sum, low, high, errors, over_count, row_count, size, place)
    ) as d
    on conflict do nothing;
end
$$;
