-- The leader's side of the feed: taking over, broadcasting, turning the outbox.

-- Which history the transaction ids of this database belong to. Positions of another lineage mean nothing: the
-- schema was restored from a dump, or a standby was promoted, or a crash emptied the unlogged tables.
create or replace function pipeline.lineage() returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select concat_ws('-',
        (select system_identifier from pg_control_system()),
        left(pg_walfile_name(pg_current_wal_lsn()), 8),
        (select oid from pg_database where datname = current_database()),
        (select generation from pipeline.leader))
$$;
grant execute on function pipeline.lineage to public;

-- What followers compare: a new epoch means that anything may have been lost. It is the lineage and the start of
-- the server, since a server that was down may have lost transactions that were reported but not yet flushed. The
-- start is a number, because the text of a time depends on the session's time zone.
create or replace function pipeline.epoch() returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select case when exists (select from pipeline.leader)
        then left(md5(pipeline.lineage() || extract(epoch from pg_postmaster_start_time())), 12) end
$$;
grant execute on function pipeline.epoch to public;

-- What a follower reads. Whoever may use the schema may follow: LISTEN, which asks for no right at all, tells the same.
grant select on pipeline.leader, pipeline.ring to public;

-- Become the leader: every earlier leader's term ends here, and whatever it still tries is refused. The caller
-- holds the leader's advisory lock, or has found its holder dead. Waits for a broadcast that is under way.
create or replace function pipeline.take_over() returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_term constant bigint := nextval('pipeline.term');
begin
    insert into pipeline.leader as l (generation, term, pid, since, retired_xmax, turned_at)
    values (v_term, v_term, pg_backend_pid(), clock_timestamp(), '0', clock_timestamp())
    on conflict (one) do update
        set term = excluded.term, pid = excluded.pid, since = excluded.since;
    if (select lineage from pipeline.leader) is distinct from pipeline.lineage() then
        -- A crash loses what a prepared transaction reported, and it may still commit.
        update pipeline.leader
        set generation = v_term, position = '1:1:',
            retired_xmax = case when lineage is null then '0'::xid8 else '18446744073709551615' end,
            flush_until = case when exists (select from pg_prepared_xacts where database = current_database())
                               then pg_current_xact_id() else '0' end;
        update pipeline.leader set lineage = pipeline.lineage();
    end if;
    -- in a logged table: a standby that shows this epoch has replayed the log of this history up to here
    insert into pipeline.setting as s (name, value) values ('feed_epoch', pipeline.epoch())
    on conflict (name) do update set value = excluded.value where s.value is distinct from excluded.value;
    return v_term;
end
$$;
revoke execute on function pipeline.take_over from public;

-- The end of a turn, and of one that the last leader did not bring to its end. Has to be the first statement of its
-- transaction: whoever read the gate before it was set has a smaller transaction id than this one. (The xmax of a
-- snapshot would not do: it is one past the newest transaction that has ended, and older ones above it still run.)
create or replace function pipeline.finish_turn(p_term bigint, p_was_full boolean) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    update pipeline.leader
    set retired_xmax = pg_current_xact_id(), turned_at = clock_timestamp(),
        flush_until = case when p_was_full then pg_current_xact_id() else flush_until end
    where term = p_term and retired_xmax = '18446744073709551615';
end
$$;
revoke execute on function pipeline.finish_turn from public;

-- Refuses to go on unless p_term leads, and keeps it leading until the transaction ends. The row is unlogged, so
-- the lock writes no WAL and the commit needs no flush.
create or replace function pipeline.assert_leader(p_term bigint) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform from pipeline.leader where term = p_term for share;
    if not found then
        raise object_not_in_prerequisite_state using message = 'another process leads the feed now';
    end if;
end
$$;
revoke execute on function pipeline.assert_leader from public;

-- Broadcast batches and remember them. A batch's payload too long for NOTIFY travels as its number alone, and
-- followers fetch it from the ring. The position belongs to the last batch.
create or replace function pipeline.broadcast(
    p_term bigint, p_lineage text, p_first bigint, p_payloads text[], p_notices text[], p_position text
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_last constant bigint := p_first + cardinality(p_payloads) - 1;
begin
    perform pipeline.assert_leader(p_term);
    if (select last_value & 1 from pipeline.gate) = 0 then
        insert into pipeline.ring_0 (seq, lineage, position, payload)
        select p_first + n - 1, p_lineage, case when p_first + n - 1 = v_last then p_position end, p
        from unnest(p_payloads) with ordinality u(p, n);
    else
        insert into pipeline.ring_1 (seq, lineage, position, payload)
        select p_first + n - 1, p_lineage, case when p_first + n - 1 = v_last then p_position end, p
        from unnest(p_payloads) with ordinality u(p, n);
    end if;
    perform pg_notify('pipeline_feed', n) from unnest(p_notices) n;
end
$$;
revoke execute on function pipeline.broadcast from public;

-- Turn the outbox when it is time: truncate the tables that rest, let writers go over to them. Returns whether it
-- turned. Called about once a second by the leader; decides only by what the database says.
--
-- The tables that rest may be truncated when nobody can write into them any more and all of it has been read. A
-- writer has its transaction id before it reads the gate, so everybody who read the old gate is below a transaction
-- that began after the gate was set (retired_xmax). When the feed's position has passed that, each of them had
-- ended and was read. A transaction that stays open therefore delays only this, never a delivery.
create or replace function pipeline.rotate(
    p_term bigint, p_seq bigint, p_position pg_snapshot, p_turn_bytes bigint, p_turn_after interval
) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_leader pipeline.leader;
    v_gate bigint;
    v_bytes bigint;
    v_resting_seq bigint;
begin
    perform pipeline.assert_leader(p_term);
    select * into v_leader from pipeline.leader where term = p_term;
    select last_value into v_gate from pipeline.gate;
    v_bytes := case when v_gate & 1 = 0
        then pg_relation_size('pipeline.outbox_0') + pg_relation_size('pipeline.ring_0')
        else pg_relation_size('pipeline.outbox_1') + pg_relation_size('pipeline.ring_1') end;
    if v_gate & 2 = 0 and v_bytes < p_turn_bytes
       and (v_bytes = 0 or v_leader.turned_at > clock_timestamp() - p_turn_after)
    then
        return false;
    end if;
    -- also as long as a turn has not come to its end: then it is the greatest number
    if pg_snapshot_xmin(p_position) < v_leader.retired_xmax then
        return false;
    end if;
    v_resting_seq := (select max(seq) from pipeline.ring_0);
    if v_gate & 1 = 0 then
        v_resting_seq := (select max(seq) from pipeline.ring_1);
    end if;
    -- a consumer that nobody has run for ten minutes must not keep the tables for ever
    if v_gate & 2 = 0
       and exists (select from pipeline.consumer
                   where lineage = v_leader.lineage and seq < v_resting_seq
                     and saved_at > clock_timestamp() - interval '10 minutes') then
        return false;
    end if;
    -- the last word: with the tables locked, nothing in them may be unread; whoever reads them is not waited for
    if v_gate & 1 = 0 then
        lock table pipeline.outbox_1, pipeline.ring_1 in access exclusive mode nowait;
        if exists (select from pipeline.outbox_1 where not pg_visible_in_snapshot(xid, p_position)) then
            return false;
        end if;
        truncate pipeline.outbox_1, pipeline.ring_1;
    else
        lock table pipeline.outbox_0, pipeline.ring_0 in access exclusive mode nowait;
        if exists (select from pipeline.outbox_0 where not pg_visible_in_snapshot(xid, p_position)) then
            return false;
        end if;
        truncate pipeline.outbox_0, pipeline.ring_0;
    end if;
    -- unknown until pipeline.finish_turn has set it; setval is not undone by a rollback, so it has a transaction of its own
    update pipeline.leader
    set retired_xmax = '18446744073709551615', seq = p_seq, position = p_position::text
    where term = p_term;
    return true;
exception when lock_not_available then
    return false;
end
$$;
revoke execute on function pipeline.rotate from public;

-- The second part of a turn, in a transaction after the truncation has committed: open the gate to the empty tables.
-- Returns whether it was closed. The third part is finish_turn.
create or replace function pipeline.turn(p_term bigint) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_gate bigint;
begin
    perform pipeline.assert_leader(p_term);
    perform pg_advisory_xact_lock(1885697639, 4);
    select last_value into v_gate from pipeline.gate;
    perform setval('pipeline.gate', (v_gate # 1) & ~2::bigint);
    return v_gate & 2 <> 0;
end
$$;
revoke execute on function pipeline.turn from public;

-- Whether writers must never ring, because applications use PREPARE TRANSACTION, which refuses NOTIFY.
create or replace function pipeline.silence_bell(p_silent boolean) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_advisory_xact_lock(1885697639, 4);
    perform setval('pipeline.gate', case when p_silent then last_value | 4 else last_value & ~4::bigint end)
    from pipeline.gate;
end
$$;
revoke execute on function pipeline.silence_bell from public;
