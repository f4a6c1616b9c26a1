-- revive: sends the open notifications of a channel whose job has ended without telling, or is gone, by another job
-- $1 text: the channel
-- locks: their rows, SKIP LOCKED
with lost as (
    select n.id
    from pipeline.alert_notification as n
    where n.channel = $1 and n.state = 'open' and not exists (select from pipeline.job as j where j.id = n.job)
    for update skip locked
)
update pipeline.alert_notification as n
set job = pipeline.enqueue_notification(n.id, n.channel)
from lost
where n.id = lost.id
returning n.id::text
