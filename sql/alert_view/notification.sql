-- notification: what became of one
-- $1 text: its id
-- locks: none
select n.state, n.attempts, n.problem, extract(epoch from coalesce(n.ended_at, pipeline.now()) - n.at)::float8 as seconds
from pipeline.alert_notification as n
where n.id = $1::text::uuid
