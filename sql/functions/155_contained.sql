-- contained: what every statement that begins after this one in the same session sees at the least, as JSON
--
-- On a standby the transactions in progress cannot be told: `seen` holds only those below xmin, and one long transaction
-- keeps it back. `wal` is the place in the primary's log up to which the standby has replayed; `epoch` says of which history
-- that is: the leader of the feed writes it into a logged table, so a standby that shows it has replayed that history.
-- Everybody may call it: it tells nothing of what was written.
create or replace function pipeline.contained() returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if pg_is_in_recovery() then
        return json_build_object(
            'epoch', (select value from pipeline.setting where name = 'feed_epoch'),
            'wal', (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint,
            'seen', format('%1$s:%1$s:', pg_snapshot_xmin(pg_current_snapshot())));
    end if;
    return json_build_object('epoch', pipeline.epoch(), 'wal', null, 'seen', pg_current_snapshot()::text);
end
$$;
grant execute on function pipeline.contained to public;
