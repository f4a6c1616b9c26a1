-- notes: what people did and said, the newest first
-- $1 float8: the span, in seconds
-- $2 text: a rule, or null for all
-- $3 text: an instance, or null for all
-- $4 bigint: how many at most
-- locks: none
-- index: alert_note_at
select n.id, extract(epoch from n.at)::float8 as at, n.rule, n.instance, n.episode, n.action, n.made_by as by, n.note
from pipeline.alert_note as n
where n.at > pipeline.now() - make_interval(secs => $1)
  and ($2::text is null or n.rule = $2)
  and ($3::text is null or n.instance = $3 or n.instance is null)
order by n.at desc, n.id desc
limit $4
