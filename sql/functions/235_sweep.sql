-- sweep: hands out jobs that became visible below the mark of their lane, and settles what nothing can appear in any more
--
-- p_every: seconds between two sweeps of a lane. p_search_every: seconds after which everything below the mark is searched,
-- settled or not, in case a lease was lost. Jobs with a key, or of a queue with a limit, are not handed out here: they go
-- back in line, where the limits are checked. A queue that is paused is left alone (its last_pos is 0); one that is drained
-- is not, or a job that commits late would keep it from ever being empty.
-- locks: each lane that has something, SKIP LOCKED, after the look, so that a long look delays no claim
-- index: job_ready
create or replace function pipeline.sweep(
    p_queue text, p_limit bigint, p_worker bigint, p_every double precision, p_search_every double precision
) returns table (
    lease bigint, id bigint, task text, args jsonb, queue text, priority smallint, attempt int, max_attempts int,
    timeout double precision, created_at double precision, run_at double precision, waited double precision,
    key text, lost smallint, expires_in double precision, workflow bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_now constant timestamptz := pipeline.now();
    v_room bigint := p_limit;
    v_taken bigint;
    v_ids bigint[];
    v_oldest xid8;
    v_lane record;
    v_state pipeline.lane_state;
    v_first_lease bigint;
    v_all bool;
begin
    for v_lane in
        select
            l.priority, l.key, l.limited or l.key <> '' as limited, s.mark, s.oldest_lease,
            s.searched_at <= v_now - make_interval(secs => p_search_every) as whole,
            case when s.searched_at <= v_now - make_interval(secs => p_search_every) then 0 else s.settled end as above
        from pipeline.lane l
        cross join lateral (
            select * from pipeline.lane_state s
            where s.queue = l.queue and s.priority = l.priority and s.key = l.key
            order by s.n desc limit 1
        ) s
        where l.queue = p_queue and l.last_pos is distinct from 0 and (
            (s.settled < s.mark and s.swept_at <= v_now - make_interval(secs => p_every))
            or s.searched_at <= v_now - make_interval(secs => p_search_every)
        )
        order by s.swept_at, l.priority -- or the first 200 would be swept for ever while a transaction stays open
        limit 200
    loop
        exit when v_room <= 0;
        -- A hint, because a claim may be under way; and the oldest transaction that was running at that moment.
        select
            array(
                select j.id
                from pipeline.job j
                where j.queue = p_queue and j.priority = v_lane.priority and j.key = v_lane.key
                    and j.pos <= v_lane.mark and j.pos > v_lane.above
                    -- a hashed set: probing arrays row by row would be quadratic
                    and j.id not in (
                        select unnest(e.ids) from pipeline.lease e
                        where e.queue = p_queue and e.priority = v_lane.priority and e.key = v_lane.key
                            and e.id >= v_lane.oldest_lease
                    )
                order by j.pos
                limit v_room
            ),
            pg_snapshot_xmin(pg_current_snapshot())
        into v_ids, v_oldest;
        v_all := cardinality(v_ids) < v_room;

        -- The lock in one statement and the look in the next, under a newer snapshot: in one statement the lock sees the
        -- newest mark and the look an older set of leases, and jobs are handed out twice.
        perform from pipeline.lane l
        where l.queue = p_queue and l.priority = v_lane.priority and l.key = v_lane.key and l.last_pos is distinct from 0
            and (v_lane.limited or not l.limited)
        for update skip locked;
        continue when not found;
        select s.* into v_state
        from pipeline.lane_state s
        where s.queue = p_queue and s.priority = v_lane.priority and s.key = v_lane.key
        order by s.n desc limit 1;
        v_first_lease := coalesce((
            select min(e.id) from pipeline.lease e
            where e.queue = p_queue and e.priority = v_lane.priority and e.key = v_lane.key
                and e.id >= v_state.oldest_lease
        ), pg_sequence_last_value('pipeline.lease_id_seq'), v_state.oldest_lease);

        if cardinality(v_ids) > 0 and v_lane.limited then
            update pipeline.job j
            set pos = nextval('pipeline.job_pos')
            where j.id = any(v_ids) and j.queue = p_queue and j.priority = v_lane.priority and j.key = v_lane.key
                and j.pos <= v_state.mark
                and j.id not in (
                    select unnest(e.ids) from pipeline.lease e
                    where e.queue = p_queue and e.priority = v_lane.priority and e.key = v_lane.key
                        and e.id >= v_state.oldest_lease
                );
        elsif cardinality(v_ids) > 0 then
            return query
            with named as materialized (
                select j.* from pipeline.job j where j.id = any(v_ids) -- apart, or a planner misled would read the whole lane
            ), picked as materialized (
                select j.*
                from named j
                where j.queue = p_queue and j.priority = v_lane.priority and j.key = v_lane.key and j.pos <= v_state.mark
                    and j.id not in (
                        select unnest(e.ids) from pipeline.lease e
                        where e.queue = p_queue and e.priority = v_lane.priority and e.key = v_lane.key
                            and e.id >= v_state.oldest_lease
                    )
            ), leased as (
                insert into pipeline.lease (worker, queue, priority, key, made_at, ids)
                select p_worker, p_queue, v_lane.priority, v_lane.key, v_now, array_agg(p.id)
                from picked p having count(*) > 0
                returning id
            )
            select
                (select l.id from leased l), p.id, p.task, p.args, p.queue, p.priority, p.attempt, p.max_attempts,
                extract(epoch from p.timeout)::float8, extract(epoch from p.created_at)::float8,
                extract(epoch from p.run_at)::float8, extract(epoch from v_now - p.run_at)::float8,
                p.key, p.lost, extract(epoch from p.expires_at - v_now)::float8, p.workflow
            from picked p
            order by p.pos;
            get diagnostics v_taken = row_count;
            v_room := v_room - v_taken;
        end if;

        delete from pipeline.lane_state s
        where s.queue = p_queue and s.priority = v_lane.priority and s.key = v_lane.key and s.n = v_state.n;
        insert into pipeline.lane_state (
            queue, priority, key, n, mark, oldest_lease, swept_at, searched_at, settled, settling, settling_xid
        )
        select
            p_queue, v_lane.priority, v_lane.key, v_state.n + 1, v_state.mark, v_first_lease, v_now,
            case when v_all and v_lane.whole then v_now else v_state.searched_at end,
            -- never beyond what this look covered: another sweep may have moved the line since
            case when v_all and v_state.settling_xid < v_oldest and v_state.settling <= v_lane.mark
                then greatest(v_state.settled, v_state.settling) else v_state.settled end,
            -- The mark that was seen before this transaction had an id, not the newest: whoever drew a position below it had
            -- an id before us. With several lanes ours is the older the later the lane.
            case when v_state.settling_xid >= v_oldest or not v_all then v_state.settling else v_lane.mark end,
            case when v_state.settling_xid >= v_oldest or not v_all
                then v_state.settling_xid else pg_current_xact_id() end;
    end loop;
end
$$;
revoke execute on function pipeline.sweep(text, bigint, bigint, double precision, double precision) from public;
