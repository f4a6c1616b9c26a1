-- What every trigger ends in: one row in the outbox, and the doorbell.
--
-- Cost: one insert into an unlogged table with one index, one page read of a sequence, one shared advisory lock
-- that never waits. It runs inside the user's transaction and takes no lock that anybody could make it wait for.
--
-- The doorbell. A pump that sleeps holds the advisory lock (1885697639, 3) exclusively. A writer tries to take it
-- shared, for its transaction. If that succeeds, no pump sleeps, and nothing needs to be said: no NOTIFY, which
-- would take a cluster-wide lock at commit. If it fails, a pump sleeps or is about to, and the writer rings.
-- To fall asleep the pump has to get the lock exclusively, so it waits until every writer that kept silent has
-- ended, and while it waits in the queue every later writer rings. No pump, no bell: if the daemon dies, the
-- server releases its lock.
--
-- The statements are text, because the trigger functions of a watch contain them: a call of a function of its own would
-- cost a fifth of the whole. They use a variable v_gate.
-- p_values: what to write as watch, op, keys, rows, ms, name and payload.
create or replace function pipeline.write_statements(p_durable boolean, p_values text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $outer$
    -- few statements, because plpgsql prepares each expression anew in every transaction; and a function that tells a
    -- sequence's value, because a query on the sequence costs five times as much
    select format($f$
        v_gate := coalesce(pg_sequence_last_value('pipeline.gate'), 0);
        %s
        if v_gate & 4 = 0 and not pg_try_advisory_xact_lock_shared(1885697639, 3)
           or date_part('microseconds', clock_timestamp())::int & 255 = 0
        then
            perform pipeline.ring(v_gate);
        end if;$f$,
        case when p_durable then pipeline.insert_statement('outbox_durable', p_values) else format($f$
        if v_gate & 3 = 0 then
            %s
        elsif v_gate & 3 = 1 then
            %s
        end if;$f$, pipeline.insert_statement('outbox_0', p_values), pipeline.insert_statement('outbox_1', p_values)) end)
$outer$;
revoke execute on function pipeline.write_statements from public;

-- What seldom happens: a pump sleeps; or it is this writer's turn, one in 256, to look at the size of the outbox.
create or replace function pipeline.ring(p_gate bigint) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_gate & 4 = 0 and not pg_try_advisory_xact_lock_shared(1885697639, 3) then
        perform pg_notify('pipeline_bell', '');
    end if;
    if p_gate & 2 = 0 then
        perform pipeline.close_if_full(p_gate);
    end if;
end
$$;
revoke execute on function pipeline.ring from public;

create or replace function pipeline.insert_statement(p_table text, p_values text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select format('insert into pipeline.%I (xid, id, at, watch, op, keys, rows, ms, name, payload) values'
                  ' (pg_current_xact_id(), nextval(''pipeline.outbox_id''), clock_timestamp(), %s);', p_table, p_values)
$$;
revoke execute on function pipeline.insert_statement from public;

-- The same for events that are not those of a watched statement.
do $do$
declare
    v_values constant text := 'v_watch, v_op, v_keys, v_rows, v_ms, v_name, v_payload';
begin
    execute format($f$
        create or replace function pipeline.write_event(
            v_watch int, v_op "char", v_keys text[], v_rows int, v_ms real,
            v_name text default null, v_payload text default null, v_durable boolean default false
        ) returns void
        language plpgsql
        set search_path = pg_catalog, pg_temp
        as $body$
        declare
            v_gate bigint;
        begin
            -- the id before the gate: whoever may write into the tables of the last turn has an id that the turn's end
            -- saw in progress (see pipeline.rotate); a watched statement has got one by writing its rows
            perform pg_current_xact_id();
            if v_durable then %s
            else %s
            end if;
        end
        $body$ $f$, pipeline.write_statements(true, v_values), pipeline.write_statements(false, v_values));
end
$do$;
revoke execute on function pipeline.write_event from public;

-- Closes the outbox when nobody has read it for too long: from then on writers write nothing, and the pump tells
-- everybody to forget everything. A stat() call.
create or replace function pipeline.close_if_full(p_gate bigint) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_locked boolean := false;
begin
    -- a bound that is no number must not fail the user's write
    if pg_relation_size(case when p_gate & 1 = 0 then 'pipeline.outbox_0'::regclass
                             else 'pipeline.outbox_1'::regclass end)
       <= coalesce((select value::bigint from pipeline.setting
                    where name = 'outbox_max_bytes' and value ~ '^[0-9]{1,18}$'), 134217728)
    then
        return;
    end if;
    v_locked := pg_try_advisory_lock(1885697639, 4);  -- against a turn of the gate at this moment; never waits
    if v_locked then
        perform setval('pipeline.gate', last_value | 2) from pipeline.gate;
        perform pg_advisory_unlock(1885697639, 4);
    end if;
exception when others or query_canceled then
    -- the lock is the session's: kept after a cancelled statement, it would let nobody turn the gate any more
    if v_locked then
        perform pg_advisory_unlock(1885697639, 4);
    end if;
    raise;
end
$$;
revoke execute on function pipeline.close_if_full from public;
