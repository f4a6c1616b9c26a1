-- recent: the last few minutes of every series, for the status
-- $1 float8: how far back, in seconds
-- locks: none
select s.series as text, s.source, s.name, s.labels::text as labels, extract(epoch from p.start)::float8 as start,
    p.sum, p.low, p.high, p.errors, p.over_count, p.row_count, p.means, p.weights
from pipeline.timing_parts(
    (select array_agg(id) from pipeline.timing_series where last_at > pipeline.now() - interval '2 hours'),
    pipeline.now() - make_interval(secs => $1), 'infinity', 60
) as p
join pipeline.timing_series as s on s.id = p.series
