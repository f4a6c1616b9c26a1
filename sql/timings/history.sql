-- history: several series in steps
-- $1 text[]: the series, bare or with braces
-- $2 text[]: for each the labels as JSON, or null
-- $3 float8: the span, in seconds
-- $4 float8: the step, in seconds, or null
-- locks: none
select s.place::int as place, extract(epoch from h.at)::float8 as at, h.count, h.errors, h.mean, h.p50, h.p95, h.p99, h.max
from unnest($1::text[], $2::text[]) with ordinality as s (series, labels, place)
cross join lateral pipeline.timing_history(
    s.series, make_interval(secs => $3), make_interval(secs => $4), s.labels::jsonb
) as h
order by s.place, h.at
