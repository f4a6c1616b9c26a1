-- forget_durable: drops the durable events that every consumer has handled
-- $1 text: the position that all of them have passed
-- $2 text: a transaction below which nothing is left
-- locks: the rows
-- index: outbox_durable_xid
delete from pipeline.outbox_durable
where xid >= $2::text::xid8 and xid < pg_snapshot_xmax($1::text::pg_snapshot)
  and pg_visible_in_snapshot(xid, $1::text::pg_snapshot)
