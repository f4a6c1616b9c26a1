-- allowance: how often something may still happen now, if at most p_rate in any p_seconds are allowed
--
-- The caller holds the limiter's row locked where it then charges. Time is that of the clock, not of the statement, which
-- may have waited for the lock; a clock that steps back stands still here.
create or replace function pipeline.allowance(p_name text, p_rate int, p_seconds double precision) returns bigint
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select p_rate - coalesce((
        select case
            when m.slot_seconds <> p_seconds / 64 then (select sum(c) from unnest(m.counts) c)
            else (
                select sum(c.n) from unnest(m.counts) with ordinality c (n, i)
                where pipeline.slot_of(m.slot, (c.i - 1)::int) >= pipeline.slot_now(m.slot, m.slot_seconds) - 64
            )
        end
        from pipeline.limiter m where m.name = p_name
    ), 0)
$$;
revoke execute on function pipeline.allowance(text, int, double precision) from public;

-- charge: counts what was just allowed; makes the limiter where there is none
-- locks: the limiter's row
create or replace function pipeline.charge(p_name text, p_count bigint, p_seconds double precision) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    insert into pipeline.limiter as m (name, slot_seconds, slot, counts)
    select p_name, p_seconds / 64, n.slot, array_fill(0, array[(n.slot % 65)::int]) || p_count::int
        || array_fill(0, array[64 - (n.slot % 65)::int])
    from (select pipeline.slot_now(0, p_seconds / 64) as slot) n
    on conflict (name) do update set
        slot_seconds = excluded.slot_seconds,
        slot = case when m.slot_seconds = excluded.slot_seconds then greatest(m.slot, excluded.slot) else excluded.slot end,
        counts = (
            select array_agg(
                case
                    when m.slot_seconds = excluded.slot_seconds then
                        case when pipeline.slot_of(m.slot, i) >= greatest(m.slot, excluded.slot) - 64 then m.counts[i + 1] else 0 end
                        + case when i = greatest(m.slot, excluded.slot) % 65 then p_count::int else 0 end
                    -- the window has another length: all that counted before counts from now on
                    when i = excluded.slot % 65 then p_count::int + (select sum(c)::int from unnest(m.counts) c)
                    else 0
                end order by i
            )
            from generate_series(0, 64) i
        )
$$;
revoke execute on function pipeline.charge(text, bigint, double precision) from public;

-- slot_of: which slot the place p_place of the ring holds, when p_newest is the newest
create or replace function pipeline.slot_of(p_newest bigint, p_place int) returns bigint
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select p_newest - ((p_newest - p_place) % 65 + 65) % 65
$$;
revoke execute on function pipeline.slot_of(bigint, int) from public;

-- slot_now: the number of the present slot, but never one before p_newest
create or replace function pipeline.slot_now(p_newest bigint, p_seconds double precision) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
begin
    if current_setting('pipeline.fake_now', true) <> '' then
        v_now := coalesce(pipeline.fake_now(), v_now);
    end if;
    return greatest(p_newest, floor(extract(epoch from v_now)::double precision / p_seconds)::bigint);
end
$$;
revoke execute on function pipeline.slot_now(bigint, double precision) from public;

-- rate_limit: whether the caller may go on, if at most "limit" in any "window" are allowed for this key; counts if so
--
-- Strict over all sessions: the key is locked until the caller's transaction ends, so call it in a transaction of its own.
-- locks: the key's limiter row
create or replace function pipeline.rate_limit(key text, "limit" int, "window" interval default '1 second') returns bool
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text := 'user:' || rate_limit.key;
    v_seconds double precision := extract(epoch from rate_limit."window")::double precision;
begin
    if coalesce(rate_limit."limit" < 1 or v_seconds <= 0 or rate_limit.key = '', true) then
        raise exception 'rate_limit needs a key, a limit of at least 1 and a window above 0'
            using errcode = 'invalid_parameter_value';
    end if;
    loop
        insert into pipeline.limiter (name) values (v_name) on conflict do nothing;
        perform from pipeline.limiter m where m.name = v_name for update;
        exit when found; -- else a cleanup has deleted the row between the two
    end loop;
    if pipeline.allowance(v_name, rate_limit."limit", v_seconds) < 1 then
        return false;
    end if;
    perform pipeline.charge(v_name, 1, v_seconds);
    return true;
end
$$;
