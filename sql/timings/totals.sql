-- totals: a series in several spans
-- $1 text: the series, bare or with braces
-- $2 text: labels as JSON, or null
-- $3 float8[]: the spans, in seconds
-- locks: none
select s.over, coalesce(t.count, 0) as count, t.total, t.mean, t.p50, t.p95, t.p99, t.min, t.max, coalesce(t.errors, 0) as errors,
    coalesce(t.slow, 0) as slow, coalesce(t.rows, 0) as rows
from unnest($3::float8[]) with ordinality as s (over, place)
left join lateral pipeline.timing_totals($1, make_interval(secs => s.over), $2::text::jsonb) as t on true
order by s.place
