-- changes_since: what the caller's snapshot sees and the feed's position p_since did not, as JSON
--
-- Call it in a REPEATABLE READ transaction that has locked pipeline.ring in ACCESS SHARE mode as its first statement: then
-- no turn of the outbox (pipeline.rotate) falls between the snapshot and this look, and the snapshot sees the last one.
-- `events` are [xid, name, op, keys, payload]. `lost`: nothing is known of the changes in between, because p_since is null
-- or older than what was truncated, the outbox was full, or there are more than 1,000.
-- Tells what LISTEN tells everybody, some milliseconds earlier. A range of the index, and a short list.
create or replace function pipeline.changes_since(p_since pg_snapshot) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_seen constant pg_snapshot := pg_current_snapshot();
    v_leader pipeline.leader;
    v_events json := '[]';
    v_count bigint := 0;
    v_lost boolean := true;
begin
    select * into v_leader from pipeline.leader;
    if found and p_since is not null then
        select count(*), coalesce(json_agg(json_build_array(
                e.xid::text::bigint,
                coalesce(e.name, w.tag, (select f.tag from pipeline.former_watch f where f.id = e.watch), ''),
                e.op::text, e.keys, e.payload)), '[]')
        into v_count, v_events
        from (
            (select * from pipeline.outbox o
             where o.xid >= pg_snapshot_xmax(p_since) and o.xid < pg_snapshot_xmax(v_seen)
               and pg_visible_in_snapshot(o.xid, v_seen)
             order by o.xid, o.id limit 1001)
            union all
            (select * from pipeline.outbox o
             where o.xid = any (array(select x from pg_snapshot_xip(p_since) x where pg_visible_in_snapshot(x, v_seen)))
             order by o.xid, o.id limit 1001)
        ) e
        left join pipeline.watch w on w.id = e.watch;
        v_lost := v_count > 1000
            or coalesce(pg_sequence_last_value('pipeline.gate'), 0) & 2 <> 0
            or v_leader.retired_xmax = '18446744073709551615'
            or v_leader.flush_until > pg_snapshot_xmin(p_since)
            or not pipeline.covers(p_since, v_leader.position::pg_snapshot)
            -- durable events are deleted when all consumers have had them, and they may be ahead of the caller
            or exists (select from pipeline.watch where durable) and not pipeline.covers(p_since, coalesce(
                   (select r.position from pipeline.ring r where r.position is not null order by r.seq desc limit 1),
                   v_leader.position)::pg_snapshot);
    end if;
    return json_build_object(
        'epoch', pipeline.epoch(), 'seen', v_seen::text, 'lost', v_lost,
        'events', case when v_lost then '[]' else v_events end);
end
$$;
grant execute on function pipeline.changes_since to public;

-- covers: whether everything that p_other sees is seen by p_one too
create or replace function pipeline.covers(p_one pg_snapshot, p_other pg_snapshot) returns boolean
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select pg_snapshot_xmax(p_one) >= pg_snapshot_xmax(p_other)
        and not exists (select from pg_snapshot_xip(p_one) x where pg_visible_in_snapshot(x, p_other))
$$;
revoke execute on function pipeline.covers from public;
