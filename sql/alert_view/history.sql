-- history: how alerts went from state to state, the newest first
-- $1 float8: the span, in seconds
-- $2 text: a rule, or null for all
-- $3 text: an instance, or null for all
-- $4 bigint: only what came before the change of this number, or null
-- $5 bigint: how many at most
-- locks: none
-- index: alert_history_at
select h.id, extract(epoch from h.at)::float8 as at, h.kind, h.rule, h.instance, h.labels::text as labels, h.episode, h.before, h.after,
    h.value, h.message, h.reason
from pipeline.alert_history as h
where h.at > pipeline.now() - make_interval(secs => $1)
  and ($2::text is null or h.rule = $2)
  and ($3::text is null or h.instance = $3)
  and ($4::bigint is null or (h.at, h.id) < (select b.at, b.id from pipeline.alert_history as b where b.id = $4))
order by h.at desc, h.id desc
limit $5
