-- changes: changes of state behind a number, in order
-- $1 bigint: the number
-- $2 bigint: how many at most
-- locks: none
select h.id, extract(epoch from h.at)::float8 as at, h.kind, h.rule, h.instance, h.labels::text as labels, h.episode, h.before, h.after,
    h.value, h.message, h.reason
from pipeline.alert_history as h
where h.id > $1
order by h.id
limit $2
