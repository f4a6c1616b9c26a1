-- set_queue: sets what is given for a queue, keeps the rest; 0 takes a limit away
--
-- concurrency: how many of its jobs run at once, over all workers. rate: how many may begin in any `per`. slots: how many
-- one worker runs at once, in place of its own setting. weight: its share of a worker whose slots all queues share.
-- locks: advisory lock 11; the queue's row and lanes: claims of this queue wait, for as long as the transaction is open
create or replace function pipeline.set_queue(
    name text,
    concurrency int default null,
    rate int default null,
    per interval default '1 second',
    slots int default null,
    weight int default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if coalesce(set_queue.name, '') = '' or set_queue.concurrency < 0 or set_queue.rate < 0 or set_queue.slots < 0
        or coalesce(set_queue.per <= '0', true) or set_queue.weight not between 1 and 1000
    then
        raise exception 'queue % cannot have these settings', coalesce(set_queue.name, 'null')
            using errcode = 'invalid_parameter_value',
            hint = 'Limits are whole numbers, 0 for none; per is above 0, weight from 1 to 1000.';
    end if;
    perform pg_advisory_xact_lock(1885697639, 11);
    insert into pipeline.queue as q (name, concurrency, rate, rate_seconds, slots, weight, changed_at)
    values (
        set_queue.name, nullif(set_queue.concurrency, 0), nullif(set_queue.rate, 0),
        case when set_queue.rate > 0 then extract(epoch from set_queue.per) end,
        nullif(set_queue.slots, 0), coalesce(set_queue.weight, 1), pipeline.now()
    )
    on conflict on constraint queue_pkey do update set
        concurrency = case when set_queue.concurrency is null then q.concurrency else excluded.concurrency end,
        rate = case when set_queue.rate is null then q.rate else excluded.rate end,
        rate_seconds = case when set_queue.rate is null then q.rate_seconds else excluded.rate_seconds end,
        slots = case when set_queue.slots is null then q.slots else excluded.slots end,
        weight = coalesce(set_queue.weight, q.weight),
        changed_at = excluded.changed_at;
    update pipeline.lane l
    set limited = q.concurrency is not null or q.rate is not null
    from pipeline.queue q
    where q.name = set_queue.name and l.queue = q.name
        and l.limited <> (q.concurrency is not null or q.rate is not null);
end
$$;
revoke execute on function pipeline.set_queue(text, int, int, interval, int, int) from public;

-- set_key_rule: limits of all keys that are `name` or begin with `name:`; without limits the rule goes
-- locks: the rule's row
create or replace function pipeline.set_key_rule(
    name text, concurrency int default null, rate int default null, per interval default '1 second'
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if coalesce(set_key_rule.name, '') = '' or set_key_rule.name ~ ':' or set_key_rule.concurrency < 1
        or set_key_rule.rate < 1 or coalesce(set_key_rule.per <= '0', true)
    then
        raise exception 'the keys of % cannot have these limits', coalesce(set_key_rule.name, 'null')
            using errcode = 'invalid_parameter_value', hint = 'Limits are at least 1, per is above 0, and no name holds a colon.';
    end if;
    if set_key_rule.concurrency is null and set_key_rule.rate is null then
        delete from pipeline.key_rule r where r.name = set_key_rule.name;
        return;
    end if;
    insert into pipeline.key_rule (name, concurrency, rate, rate_seconds)
    values (
        set_key_rule.name, set_key_rule.concurrency, set_key_rule.rate,
        case when set_key_rule.rate is not null then extract(epoch from set_key_rule.per) end
    )
    on conflict on constraint key_rule_pkey do update set
        concurrency = excluded.concurrency, rate = excluded.rate, rate_seconds = excluded.rate_seconds;
end
$$;
revoke execute on function pipeline.set_key_rule(text, int, int, interval) from public;

-- pause_queue: hands out no more jobs of a queue; what runs goes on. Claims that are under way have ended when it returns
-- locks: as set_queue
create or replace function pipeline.pause_queue(name text) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select pipeline.hold_queue(name, 'paused', 0)
$$;
revoke execute on function pipeline.pause_queue(text) from public;

-- drain_queue: hands out the jobs that are in line now, and none that comes later, also no retry
-- locks: as set_queue
create or replace function pipeline.drain_queue(name text) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select pipeline.hold_queue(name, 'draining', coalesce(pg_sequence_last_value('pipeline.job_pos'), 0))
$$;
revoke execute on function pipeline.drain_queue(text) from public;

-- resume_queue: hands out jobs of a queue again
-- locks: as set_queue
create or replace function pipeline.resume_queue(name text) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select pipeline.hold_queue(name, 'running', null);
    select pipeline.wake_workers(name)
$$;
revoke execute on function pipeline.resume_queue(text) from public;

-- hold_queue: nothing beyond a position is handed out of a queue; null takes the bound away
create or replace function pipeline.hold_queue(p_name text, p_state text, p_last_pos bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_advisory_xact_lock(1885697639, 11);
    insert into pipeline.queue (name, state, last_pos, changed_at) values (p_name, p_state, p_last_pos, pipeline.now())
    on conflict (name) do update set
        state = excluded.state, last_pos = excluded.last_pos, changed_at = excluded.changed_at;
    update pipeline.lane l set last_pos = p_last_pos
    where l.queue = p_name and l.last_pos is distinct from p_last_pos;
end
$$;
revoke execute on function pipeline.hold_queue(text, text, bigint) from public;
