-- backlog: bytes in the outbox, whether it is full, and how full the server's notification queue is
-- locks: none
select
    pg_relation_size('pipeline.outbox_0') + pg_relation_size('pipeline.outbox_1') as bytes,
    (select last_value & 2 <> 0 from pipeline.gate) as is_full,
    pg_notification_queue_usage() as queue_usage
