-- own_changes: what the calling transaction has reported to the outbox so far, as JSON; ask it last, before the commit
--
-- `xid` is null when it has written nothing. `events` are [name, op, keys, payload]. `lost`: that is not all, because there
-- are more than 1,000 or the outbox was full. `deferred`: some table has a trigger that may fire at the commit only, after
-- this. `began` tells transactions apart. Everybody may call it: it tells of the caller's own transaction alone.
-- The outbox is never analyzed, so the settings say what the planner cannot know: three look-ups, whatever its size.
create or replace function pipeline.own_changes() returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_xid constant xid8 := pg_current_xact_id_if_assigned();
    v_events json := '[]';
    v_count bigint := 0;
    v_lost boolean := false;
begin
    if v_xid is not null then
        select count(*), coalesce(json_agg(json_build_array(
                coalesce(e.name, w.tag, (select f.tag from pipeline.former_watch f where f.id = e.watch), ''),
                e.op::text, e.keys, e.payload) order by e.id), '[]')
        into v_count, v_events
        from (select * from pipeline.outbox o where o.xid = v_xid limit 1001) e
        left join pipeline.watch w on w.id = e.watch;
        -- whoever could have written nothing because the outbox was full is below flush_until, once the turn that
        -- emptied it has come to its end (see pipeline.finish_turn)
        v_lost := v_count > 1000 or coalesce(pg_sequence_last_value('pipeline.gate'), 0) & 2 <> 0 or exists (
            select from pipeline.leader
            where flush_until > v_xid or retired_xmax = '18446744073709551615');
    end if;
    return json_build_object(
        'began', extract(epoch from transaction_timestamp())::text,
        'xid', v_xid::text::bigint,
        'lost', v_lost,
        'deferred', v_xid is not null and exists (select from pg_trigger where tgdeferrable and not tgisinternal),
        'events', case when v_lost then '[]' else v_events end);
end
$$;
grant execute on function pipeline.own_changes to public;
