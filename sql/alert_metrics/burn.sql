-- burn: how fast each objective burns its budget, over a long and over a short time; the slower of the two counts
-- $1 float8: the long time, in seconds
-- $2 float8: the short time, in seconds
-- locks: none
select jsonb_build_object('slo', s.name) as labels, least(l.burn, h.burn) as value,
    case when l.events >= s.min_events then l.events::bigint else 0 end as samples,
    format('%s of %s events good is the objective', s.objective * 100 || ' %', s.series) as detail
from pipeline.slo as s
cross join lateral pipeline.slo_burn(s, make_interval(secs => $1)) as l
cross join lateral pipeline.slo_burn(s, make_interval(secs => $2)) as h
where s.enabled and h.burn is not null
