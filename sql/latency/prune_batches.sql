-- prune_batches: deletes batches that are past their time and rolled up
-- $1 float8: how long they are kept, in seconds
-- $2 bigint: how many at most
-- locks: the rows
delete from pipeline.timing_batch as b
where (b.writer, b.number) in (
    select o.writer, o.number
    from pipeline.timing_batch as o
    where o.rolled and o.start < pipeline.now() - make_interval(secs => $1)
    order by o.start
    limit $2
)
