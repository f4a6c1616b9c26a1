-- backlog: bytes in the outbox, and whether it is full
-- locks: none
select
    pg_relation_size('pipeline.outbox_0') + pg_relation_size('pipeline.outbox_1') as bytes,
    (select last_value & 2 <> 0 from pipeline.gate) as is_full
