-- claim: hands out jobs of a queue, each lane's as one lease; writes no job row
--
-- p_free: how many could begin at once; a rate below 1,000/s is not spent on more, so that jobs begin when they are
-- counted. p_limit: how many at most. p_after: the key of the last row of the claim before, whose turn was last. A last
-- row without an id says that there may be jobs that could not be had now: `waited` is then the number of seconds after
-- which to ask again, and `key` how far this look went.
-- locks: the lanes it takes from, one claim at a time each; where a limit holds also the queue's row, the key's limiter
-- index: job_ready
create or replace function pipeline.claim(
    p_queue text, p_free bigint, p_limit bigint, p_worker bigint, p_after text default ''
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
    v_queue pipeline.queue;
    v_rule pipeline.key_rule;
    v_lane record;
    v_state pipeline.lane_state;
    v_room bigint := p_limit;
    v_quota bigint;
    v_take bigint;
    v_taken bigint;
    v_allowed bigint;
    v_ask_in double precision;
    v_seen text := p_after;
    v_keyed bool := exists (
        select from pipeline.lane l where l.queue = p_queue and (l.key <> '' or l.limited)
    );
begin
    if v_keyed then
        select * into v_queue from pipeline.queue q where q.name = p_queue for update;
        if v_queue.concurrency is not null then
            v_room := least(v_room, v_queue.concurrency - pipeline.running(p_queue));
        end if;
        if v_queue.rate is not null then
            v_allowed := pipeline.allowance('queue:' || p_queue, v_queue.rate, v_queue.rate_seconds);
            v_room := least(v_room, v_allowed, case when v_queue.rate < 1000 * v_queue.rate_seconds then p_free end);
            v_ask_in := case when v_allowed < 1 then greatest(0.01, least(1, v_queue.rate_seconds / 64)) end;
        end if;
    end if;

    for v_lane in
        select l.priority, l.key, p_limit as quota
        from pipeline.lane l
        -- laterally, not with `exists`: that may become a hash join, which reads every job in line
        cross join lateral (
            select from pipeline.job j
            where j.queue = l.queue and j.priority = l.priority and j.key = l.key
                and j.pos <= coalesce(l.last_pos, 9223372036854775807)
                and j.pos > (
                    select s.mark from pipeline.lane_state s
                    where s.queue = l.queue and s.priority = l.priority and s.key = l.key
                    order by s.n desc limit 1
                )
            limit 1
        ) j
        where not v_keyed and l.queue = p_queue and l.key = '' and not l.limited
        union all
        select t.priority, t.key, t.quota from pipeline.turns(p_queue, p_after, v_room) t where v_keyed and v_room > 0
        order by 1
    loop
        exit when v_room <= 0;
        v_seen := coalesce(v_lane.key, v_seen);
        if v_lane.priority is null then
            v_ask_in := least(v_ask_in, v_lane.quota / 1000.0);
            continue;
        end if;
        v_take := least(v_room, v_lane.quota);

        -- The lock in one statement, and all that depends on it in the next ones, under newer snapshots.
        perform from pipeline.lane l
        where l.queue = p_queue and l.priority = v_lane.priority and l.key = v_lane.key
            and (v_keyed or not l.limited) -- it may have been limited since
        for update skip locked;
        if not found then
            v_ask_in := least(v_ask_in, 0.002); -- another claim has it, for about as long
            continue;
        end if;

        v_rule := null;
        if v_lane.key <> '' then
            select * into v_rule from pipeline.key_rule r where r.name = split_part(v_lane.key, ':', 1);
            if v_rule.name is not null then
                perform from pipeline.limiter m where m.name = 'key:' || v_lane.key for update skip locked;
                if not found then
                    -- Made here and now only by whoever then takes nothing more: it waits for nobody with this in hand.
                    insert into pipeline.limiter (name) values ('key:' || v_lane.key) on conflict do nothing;
                    v_ask_in := 0.002;
                    exit;
                end if;
                if v_rule.concurrency is not null then
                    v_take := least(v_take, v_rule.concurrency - (
                        select coalesce(sum(cardinality(e.ids)), 0) from pipeline.lease e where e.key = v_lane.key
                    ));
                end if;
                if v_rule.rate is not null then
                    v_allowed := pipeline.allowance('key:' || v_lane.key, v_rule.rate, v_rule.rate_seconds);
                    v_take := least(v_take, v_allowed, case when v_rule.rate < 1000 * v_rule.rate_seconds then p_free end);
                    if v_allowed < 1 then
                        v_ask_in := least(v_ask_in, greatest(0.01, least(1, v_rule.rate_seconds / 64)));
                    end if;
                end if;
                continue when v_take <= 0;
            end if;
        end if;

        select s.* into v_state
        from pipeline.lane_state s
        where s.queue = p_queue and s.priority = v_lane.priority and s.key = v_lane.key
        order by s.n desc limit 1;

        return query
        with picked as materialized (
            select j.*
            from pipeline.job j
            where j.queue = p_queue and j.priority = v_lane.priority and j.key = v_lane.key and j.pos > v_state.mark
                and j.pos <= coalesce((
                    select l.last_pos from pipeline.lane l
                    where l.queue = p_queue and l.priority = v_lane.priority and l.key = v_lane.key
                ), 9223372036854775807)
            order by j.pos
            limit v_take
        ), leased as (
            insert into pipeline.lease (worker, queue, priority, key, counted, made_at, ids)
            select p_worker, p_queue, v_lane.priority, v_lane.key, v_keyed, v_now, array_agg(p.id)
            from picked p having count(*) > 0
            returning id
        ), noted as (
            insert into pipeline.lane_state (
                queue, priority, key, n, mark, settled, settling, settling_xid, oldest_lease, swept_at, searched_at
            )
            select
                v_state.queue, v_state.priority, v_state.key, v_state.n + 1, (select max(pos) from picked),
                v_state.settled, v_state.settling, v_state.settling_xid, v_state.oldest_lease,
                v_state.swept_at, v_state.searched_at
            from leased
        ), dropped as (
            delete from pipeline.lane_state s
            using leased
            where s.queue = v_state.queue and s.priority = v_state.priority and s.key = v_state.key and s.n = v_state.n
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
        if v_queue.rate is not null and v_taken > 0 then
            perform pipeline.charge('queue:' || p_queue, v_taken, v_queue.rate_seconds);
        end if;
        if v_rule.rate is not null and v_taken > 0 then
            perform pipeline.charge('key:' || v_lane.key, v_taken, v_rule.rate_seconds);
        end if;
        -- without keys: one lane a claim, so that a worker comes back to the first one before it takes of the others
        exit when v_taken > 0 and not v_keyed;
    end loop;
    if v_ask_in is not null then
        id := null; queue := p_queue; key := v_seen; waited := v_ask_in;
        return next;
    end if;
end
$$;
revoke execute on function pipeline.claim(text, bigint, bigint, bigint, text) from public;

-- turns: which lanes of a queue a claim should take from, in turn after the key p_after, and how many of each
--
-- Goes from key to key by the index, and so past however many jobs a key has. A hint: the claim looks again under each
-- lane's lock. A last row without a priority says that there may be more later: its quota is the number of milliseconds
-- after which to look again, because keys wait for their rate or because 500 were seen; its key then is where to go on.
-- locks: none
-- index: job_ready
create or replace function pipeline.turns(p_queue text, p_after text, p_room bigint)
returns table (priority smallint, key text, quota bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    -- where a look that gave up goes on: priority, length of the key where it began, that key and the last one seen;
    -- anybody's key may look like this, and must not end in an error
    v_goes_on constant text[] := regexp_match(p_after, '^\x01(-?\d{1,5}):(\d{1,5}):(.*)$');
    v_after constant text := coalesce(left(v_goes_on[3], v_goes_on[2]::int), p_after);
    v_priority smallint := least(greatest(v_goes_on[1]::int, -32768), 32767);
    v_key text := coalesce(substr(v_goes_on[3], v_goes_on[2]::int + 1), p_after);
    v_round int := case when v_goes_on is null or v_key > v_after then 1 else 2 end;
    v_priorities smallint[] := '{}';
    v_keys text[] := '{}';
    v_seen int := 0;
    v_spent double precision;
    v_ask_ms bigint;
begin
    if v_priority is null then
        v_priority := (
            select j.priority from pipeline.job j where j.queue = p_queue and j.pos is not null order by j.priority limit 1
        );
    end if;
    while v_priority is not null and v_seen < 500 and cardinality(v_keys) < p_room loop
        loop -- first the keys beyond v_after, then those from the beginning up to it
            v_key := (
                select j.key from pipeline.job j
                where j.queue = p_queue and j.priority = v_priority and j.pos is not null and j.key > v_key
                order by j.key limit 1
            );
            if v_round = 1 and v_key is null then
                v_round := 2;
                v_key := (
                    select j.key from pipeline.job j
                    where j.queue = p_queue and j.priority = v_priority and j.pos is not null
                    order by j.key limit 1
                );
            end if;
            exit when v_key is null or (v_round = 2 and v_key > v_after);
            v_seen := v_seen + 1;
            if pipeline.claimable(p_queue, v_priority, v_key) then
                v_spent := case when v_key <> '' then (
                    select r.rate_seconds from pipeline.key_rule r
                    where r.name = split_part(v_key, ':', 1)
                        and pipeline.allowance('key:' || v_key, r.rate, r.rate_seconds) < 1
                ) end;
                if v_spent is null then
                    v_priorities := v_priorities || v_priority;
                    v_keys := v_keys || v_key;
                else
                    v_ask_ms := least(v_ask_ms, greatest(10, least(1000, (v_spent * 1000 / 64)::bigint)));
                end if;
            end if;
            exit when v_seen >= 500 or cardinality(v_keys) >= p_room;
        end loop;
        exit when v_seen >= 500 or cardinality(v_keys) >= p_room;
        v_priority := (
            select j.priority from pipeline.job j
            where j.queue = p_queue and j.pos is not null and j.priority > v_priority order by j.priority limit 1
        );
        v_key := v_after;
        v_round := 1;
    end loop;
    return query
    select t.priority, t.key, (p_room + cardinality(v_keys) - 1) / cardinality(v_keys)
    from unnest(v_priorities, v_keys) t (priority, key);
    if v_seen >= 500 and cardinality(v_keys) < p_room then
        return query select
            null::smallint, E'\x01' || v_priority || ':' || length(v_after) || ':' || v_after || v_key,
            least(v_ask_ms, case when cardinality(v_keys) > 0 then 0 else 20 end);
    elsif v_ask_ms is not null or v_goes_on is not null and cardinality(v_keys) = 0 then
        -- once all the way round: the next look begins at the highest priority again
        return query select null::smallint, v_after, least(v_ask_ms, 1000);
    end if;
end
$$;
revoke execute on function pipeline.turns(text, text, bigint) from public;

-- claimable: whether a lane has a job beyond its mark, and its key's limit of concurrency leaves room for one
create or replace function pipeline.claimable(p_queue text, p_priority smallint, p_key text) returns bool
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select
        from pipeline.lane l
        cross join lateral (
            select s.mark from pipeline.lane_state s
            where s.queue = l.queue and s.priority = l.priority and s.key = l.key
            order by s.n desc limit 1
        ) s
        cross join lateral (
            select from pipeline.job j
            where j.queue = p_queue and j.priority = p_priority and j.key = p_key and j.pos > s.mark
                and j.pos <= coalesce(l.last_pos, 9223372036854775807)
            limit 1
        ) j
        where l.queue = p_queue and l.priority = p_priority and l.key = p_key
            and (p_key = '' or not exists (
                select from pipeline.key_rule r
                where r.name = split_part(p_key, ':', 1) and r.concurrency <= (
                    select coalesce(sum(cardinality(e.ids)), 0) from pipeline.lease e where e.key = p_key
                )
            ))
    )
$$;
revoke execute on function pipeline.claimable(text, smallint, text) from public;

-- running: how many jobs of a queue leases list; exact for a queue whose leases are all counted
create or replace function pipeline.running(p_queue text) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(sum(cardinality(e.ids)), 0) from pipeline.lease e where e.queue = p_queue
$$;
revoke execute on function pipeline.running(text) from public;
