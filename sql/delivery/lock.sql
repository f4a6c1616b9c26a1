-- lock: one channel, for a round of telling; no row when another process is at it
-- $1 text: the channel
-- locks: the row, SKIP LOCKED
select c.tokens, extract(epoch from c.refilled_at)::float8 as refilled_at, extract(epoch from pipeline.now())::float8 as now
from pipeline.alert_channel as c
where c.name = $1
for update skip locked
