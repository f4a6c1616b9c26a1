-- top_series: the greatest series of a span, with the texts of queries
-- $1 float8: the span, in seconds
-- $2 text: by what they are ordered
-- $3 int: how many at most
-- $4 text: the source, or null
-- $5 text: the name, bare or with braces, or null
-- $6 text: labels as JSON, or null
-- $7 text: series, or name: all label sets of a name as one
-- locks: none
with top as materialized (
    select t.*
    from pipeline.top_series(make_interval(secs => $1), $2, $3, $4, $5, $6::text::jsonb, $7) with ordinality as t (
        series, source, name, labels, count, total, mean, p50, p95, p99, max, errors, slow, rows, share, first_at, place
    )
)
select t.series, t.source, t.name, t.labels::text as labels, t.count, t.total, t.mean, t.p50, t.p95, t.p99, t.max, t.errors,
    t.slow, t.rows, t.share, extract(epoch from t.first_at)::float8 as first_at, q.query
from top as t
left join pipeline.query_texts((select array_agg(f.labels ->> 'fingerprint') from top as f)) as q
    on q.fingerprint = t.labels ->> 'fingerprint'
order by t.place
