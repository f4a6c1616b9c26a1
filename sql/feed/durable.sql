-- durable: durable events that not every consumer has handled, in the order of (xid, id)
-- $1 text, $2 bigint: the (xid, id) of the last one already read
-- $3 int: how many at most
-- locks: none
-- index: outbox_durable_xid
select
    e.xid::text::bigint as xid, e.id,
    coalesce(e.name, w.tag, (select f.tag from pipeline.former_watch f where f.id = e.watch), '') as name,
    e.op::text as op, e.keys, e.rows, e.ms, e.payload
from pipeline.outbox_durable e
left join pipeline.watch w on w.id = e.watch
where (e.xid, e.id) > ($1::text::xid8, $2::bigint)
order by e.xid, e.id
limit $3::int
