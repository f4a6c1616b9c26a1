-- regression: the p95 of every series in one window, by the median of that of the same hour on the seven days before
-- $1 text: the series; with % in it a LIKE pattern
-- $2 jsonb: what its labels contain
-- $3 text[]: its sources; null for all
-- $4 float8: the start of the window, in seconds since the epoch
-- $5 int: its length in seconds
-- locks: none
-- Days of fewer than 100 timings do not count, and without three days there is no value. Less than 5 ms is noise.
with earlier as (
    select s.series, percentile_cont(0.5) within group (order by s.quantiles[2]) as base
    from generate_series(1, 7) as d (day)
    cross join lateral (
        select date_bin('1 hour', to_timestamp($4::float8), 'epoch') - d.day * interval '24 hours' as start
    ) as h
    cross join lateral pipeline.alert_timings($1, $2, $3, h.start, 3600) as s
    where s.count >= 100
    group by s.series
    having count(*) >= 3
)
select s.series, s.labels, s.count as samples,
    case when s.quantiles[2] > e.base + 5 then s.quantiles[2] / greatest(e.base, 0.001) when e.base is not null then 1 end as value,
    format('p95 %s ms, before %s ms', round(s.quantiles[2]::numeric, 1), round(e.base::numeric, 1)) as detail
from pipeline.alert_timings($1, $2, $3, to_timestamp($4::float8), $5) as s
left join earlier as e on e.series = s.series
