-- fingerprints: those that begin so, at most ten
-- $1 text: hexadecimal digits
-- locks: none
select distinct s.labels ->> 'fingerprint' as fingerprint
from pipeline.timing_series_list('query') as s
where starts_with(s.labels ->> 'fingerprint', $1)
order by 1
limit 10
