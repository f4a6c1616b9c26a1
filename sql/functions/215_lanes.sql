-- request_lane: leaves a note for the workers where a lane is missing
create or replace function pipeline.request_lane(p_queue text, p_priority int, p_key text default '') returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (
        select from pipeline.lane l where l.queue = p_queue and l.priority = p_priority::smallint and l.key = p_key
    ) then
        insert into pipeline.lane_request (queue, priority, key) values (p_queue, p_priority, p_key);
    end if;
end
$$;
revoke execute on function pipeline.request_lane(text, int, text) from public;

-- adopt_lanes: makes the lanes that producers asked for; returns how many are new
--
-- One at a time, and not while a queue is being paused or limited: a lane made then would not know of it.
-- locks: the requests, SKIP LOCKED; advisory lock 11
create or replace function pipeline.adopt_lanes() returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_made bigint;
begin
    if not exists (select from pipeline.lane_request) then
        return 0;
    end if;
    perform pg_advisory_xact_lock(1885697639, 11);
    with asked as materialized (
        select r.ctid as tid, r.queue, r.priority, r.key from pipeline.lane_request r limit 10000 for update skip locked
    ), answered as (
        delete from pipeline.lane_request r using asked a where r.ctid = a.tid
    ), made as (
        insert into pipeline.lane (queue, priority, key, last_pos, limited)
        select distinct
            a.queue, a.priority, a.key, q.last_pos,
            coalesce(q.concurrency is not null or q.rate is not null, false)
        from asked a
        left join pipeline.queue q on q.name = a.queue
        -- one that no index takes must not keep all others from being made
        where octet_length(a.queue) + octet_length(a.key) <= 2000
        on conflict do nothing
        returning queue, priority, key
    ), stated as (
        insert into pipeline.lane_state (queue, priority, key, n) select m.queue, m.priority, m.key, 0 from made m
    )
    select count(*) into v_made from made;
    return v_made;
end
$$;
revoke execute on function pipeline.adopt_lanes() from public;

-- prune_lanes: deletes lanes of keys that have had no job for p_idle; returns how many
-- locks: the lanes, SKIP LOCKED; advisory lock 11
create or replace function pipeline.prune_lanes(p_idle interval default '10 minutes') returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_before constant timestamptz := pipeline.now() - p_idle;
    v_lane record;
    v_pruned bigint := 0;
begin
    perform pg_advisory_xact_lock(1885697639, 11);
    for v_lane in
        select l.queue, l.priority, l.key
        from pipeline.lane l
        -- here as well as below, or the first 5,000 that are in use would hide the others for ever
        cross join lateral (
            select * from pipeline.lane_state s
            where s.queue = l.queue and s.priority = l.priority and s.key = l.key
            order by s.n desc limit 1
        ) s
        where l.key <> '' and s.settled >= s.mark and s.swept_at < v_before
            and not exists (
                select from pipeline.job j where j.queue = l.queue and j.priority = l.priority and j.key = l.key
            )
            and not exists (
                select from pipeline.lease e where e.queue = l.queue and e.priority = l.priority and e.key = l.key
            )
        limit 5000
        for update of l skip locked
    loop
        -- settled: nothing can appear any more at a position that this lane has passed; and a lane made anew begins at 0
        delete from pipeline.lane_state s
        where s.queue = v_lane.queue and s.priority = v_lane.priority and s.key = v_lane.key
            and s.settled >= s.mark and s.swept_at < v_before
            and s.n = (
                select max(n.n) from pipeline.lane_state n
                where n.queue = s.queue and n.priority = s.priority and n.key = s.key
            )
            and not exists (
                select from pipeline.lease e
                where e.queue = v_lane.queue and e.priority = v_lane.priority and e.key = v_lane.key
            )
            and not exists (
                select from pipeline.job j
                where j.queue = v_lane.queue and j.priority = v_lane.priority and j.key = v_lane.key and j.pos is not null
            );
        if found then
            delete from pipeline.lane l
            where l.queue = v_lane.queue and l.priority = v_lane.priority and l.key = v_lane.key;
            v_pruned := v_pruned + 1;
        end if;
    end loop;
    return v_pruned;
end
$$;
revoke execute on function pipeline.prune_lanes(interval) from public;
