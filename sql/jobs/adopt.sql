-- adopt: makes the lanes that producers asked for; returns how many are new
-- locks: the requests, SKIP LOCKED
with asked as materialized (
    select r.ctid as tid, r.queue, r.priority from pipeline.lane_request r limit 10000 for update skip locked
), answered as (
    delete from pipeline.lane_request r using asked a where r.ctid = a.tid
), made as (
    insert into pipeline.lane (queue, priority)
    select distinct a.queue, a.priority from asked a
    on conflict do nothing
    returning 1
)
select count(*) from made
