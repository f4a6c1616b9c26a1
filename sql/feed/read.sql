-- read: the events that committed between two positions, in the order of (xid, id), and where the feed stands
-- $1 text: the position already read, as pg_snapshot
-- $2 text: the position to read up to; null takes the newest, which the first row then tells
-- $3 text, $4 bigint: the (xid, id) of the last event already read of this round; 0, 0 at its start
-- $5 int: how many events at most
-- locks: none that anyone waits for
-- index: outbox_0_xid, outbox_1_xid
--
-- The difference of two snapshots, as PgQ reads it: what had not begun at the first is a range of the index; what was
-- in progress then is a short list. Nothing is skipped when transactions commit in another order than they wrote,
-- and a transaction that stays open makes nothing slower. There is always at least one row.
with s as materialized (
    select
        pg_current_snapshot() as newest,
        coalesce($2::text::pg_snapshot, pg_current_snapshot()) as upto,
        $1::text::pg_snapshot as since,
        (select last_value from pipeline.gate) as gate,
        -- asked after the snapshot was taken: the commit of whatever it sees had been written to the log before
        (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint as wal
),
found as (
    select o.* from s, lateral (
        -- one lower bound: of two, the index scan may begin at the weaker and walk over everything already read
        select * from pipeline.outbox o
        where (o.xid, o.id) > (greatest($3::text::xid8, pg_snapshot_xmax(s.since)),
                               case when $3::text::xid8 >= pg_snapshot_xmax(s.since) then $4::bigint else -1 end)
          and o.xid < pg_snapshot_xmax(s.upto) and pg_visible_in_snapshot(o.xid, s.upto)
        order by o.xid, o.id
        limit $5::int
    ) o
    union all
    select o.* from s, lateral (
        select * from pipeline.outbox o
        where o.xid = any (array(select x from pg_snapshot_xip(s.since) x where pg_visible_in_snapshot(x, s.upto)))
          and (o.xid, o.id) > ($3::text::xid8, $4::bigint)
        order by o.xid, o.id
        limit $5::int
    ) o
)
select
    s.upto::text as upto, s.gate, s.wal, e.xid::text::bigint as xid, e.id,
    coalesce(e.name, w.tag, (select f.tag from pipeline.former_watch f where f.id = e.watch), '') as name,
    -- the wire form behind the name (see pipeline/core/events.py), which ends at the last value that is no default
    '"' || e.op::text || '"' || case
        when e.payload is not null then
            concat(',', coalesce(array_to_json(e.keys)::text, 'null'), ',', e.rows, ',', coalesce(e.ms::text, 'null'),
                   ',', to_json(e.payload))
        when e.ms is not null then
            concat(',', coalesce(array_to_json(e.keys)::text, 'null'), ',', e.rows, ',', e.ms)
        when e.rows <> 1 then concat(',', coalesce(array_to_json(e.keys)::text, 'null'), ',', e.rows)
        when e.keys is not null then ',' || array_to_json(e.keys)::text
        else ''
    end || ']' as tail,
    1000 * date_part('epoch', clock_timestamp() - e.at) as age_ms
from s
left join lateral (select * from found order by xid, id limit $5::int) e on true
left join pipeline.watch w on w.id = e.watch
order by e.xid, e.id
