-- known: the names of all series, and how many label sets each has
-- locks: none
select s.name, s.source, count(*) as series, max(extract(epoch from s.last_at))::float8 as last_at
from pipeline.timing_series_list() as s
group by s.name, s.source
order by s.name, s.source
