-- series: the ids of series; those that are new are noted
-- $1 text[]: series, each once
-- $2 text[]: their sources
-- $3 text[]: their names
-- $4 text[]: their labels, as JSON
-- locks: new rows, in the order of the series, so that two writers wait for each other at most; rows that were not written to
-- for an hour, SKIP LOCKED
with given as (
    select g.*, k.id, k.last_at
    from unnest($1::text[], $2::text[], $3::text[], $4::text[]) as g (series, source, name, labels)
    left join pipeline.timing_series as k on k.series = g.series
),
new as (
    insert into pipeline.timing_series (series, source, name, labels, first_at, last_at)
    select series, source, name, labels::jsonb, pipeline.now(), pipeline.now()
    from given
    where id is null
    order by series collate "C"
    on conflict (series) do update set last_at = greatest(pipeline.timing_series.last_at, excluded.last_at)
    returning id, series
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
select series, id from given where id is not null
union all
select series, id from new
