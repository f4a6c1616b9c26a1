-- The leader's side of the inbox of timings.

-- Takes out what was committed since the last time: for each series and window of five seconds the values. Another leader that
-- does the same waits for this one and then finds nothing.
create or replace function pipeline.drain_timings()
returns table (name text, labels text, start double precision, ms double precision[])
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_read pg_snapshot;
begin
    if not exists (select from pipeline.timing_inbox_place) then
        insert into pipeline.timing_inbox_place (position) values ('1:1:') on conflict do nothing;
    end if;
    select p.position into v_read from pipeline.timing_inbox_place as p for update;
    -- A place that was restored from another server may lie ahead; then nothing is read once, and it lies right again.
    -- As PgQ reads: what had not begun at the first snapshot is a range of the index, what was under way then a short list.
    return query
    with s as materialized (
        select pg_current_snapshot() as position
    ),
    moved as (
        update pipeline.timing_inbox_place as p set position = s.position from s
    ),
    fresh as (
        select i.* from pipeline.timing_inbox as i where i.xid >= pg_snapshot_xmax(v_read)
        union all
        select i.* from pipeline.timing_inbox as i where i.xid = any(array(select pg_snapshot_xip(v_read)))
    )
    select f.name, f.labels::text, floor(extract(epoch from f.at)::float8 / 5) * 5 as start, array_agg(v.ms)
    from fresh as f
    cross join unnest(f.ms) as v (ms)
    group by f.name, f.labels, 3;
end
$$;
revoke execute on function pipeline.drain_timings() from public;

-- Empties the table of the inbox that rests, if it can be had at once and everything in it was taken; lets writers go over to
-- it when the other has grown to p_turn_bytes; opens the gate again when there is room. Called after each drain.
create or replace function pipeline.turn_timing_inbox(p_turn_bytes bigint) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_gate constant bigint := (select last_value from pipeline.timing_gate);
    v_active constant regclass := format('pipeline.timing_inbox_%s', v_gate & 1);
    v_resting constant regclass := format('pipeline.timing_inbox_%s', 1 - (v_gate & 1));
    v_read constant pg_snapshot := coalesce((select p.position from pipeline.timing_inbox_place as p), '1:1:');
    v_unread bool;
begin
    if pg_relation_size(v_resting) > 0 then
        begin
            execute format('lock table %s in access exclusive mode nowait', v_resting);
            execute format('select exists (select from %s where xid >= $1 or xid = any($2))', v_resting)
            into v_unread
            using pg_snapshot_xmax(v_read), array(select pg_snapshot_xip(v_read));
            if not v_unread then
                execute format('truncate table %s', v_resting);
            end if;
        exception
            when lock_not_available then null;  -- a transaction that wrote here is still open; or a dump reads it
        end;
    end if;
    -- A table that cannot be emptied is written again when the other has grown to twice its size, so that this one can be.
    if pg_relation_size(v_active) >= greatest(p_turn_bytes, 2 * pg_relation_size(v_resting)) then
        perform setval('pipeline.timing_gate', 1 - (v_gate & 1));
    elsif v_gate >= 2 and pg_relation_size(v_active) < p_turn_bytes then
        perform setval('pipeline.timing_gate', v_gate & 1);
    end if;
end
$$;
revoke execute on function pipeline.turn_timing_inbox(bigint) from public;
