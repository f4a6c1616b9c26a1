-- silences: those that hold or will, and if asked for those that are over
-- $1 bool: whether those that are over are wanted, too
-- locks: none
-- index: alert_silence_end
select s.id, s.matchers::text as matchers, extract(epoch from s.starts_at)::float8 as starts_at,
    extract(epoch from s.ends_at)::float8 as ends_at, s.reason, s.made_by, s.ended_by,
    s.starts_at <= pipeline.now() and s.ends_at > pipeline.now() as active,
    extract(epoch from s.ends_at - pipeline.now())::float8 as left_seconds
from pipeline.alert_silence as s
where $1::bool or s.ends_at > pipeline.now()
order by s.ends_at desc, s.id
limit 1000
