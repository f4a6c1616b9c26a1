-- The cache's second level, as applications use it. None of them has rights on the tables: a function reads and
-- writes the rows of the role that calls it, and of no other. To keep a role from sharing at all, revoke execute on
-- pipeline.cache_get from public, and grant it to those who may; the other functions ask for that right, too.

-- Whose rows: the role that SET ROLE has chosen, or else the one that logged in. (Inside these functions, current_user
-- is their owner.)
create or replace function pipeline.cache_role() returns oid
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(
        (select r.oid from pg_roles r where r.rolname = nullif(current_setting('role'), 'none')),
        (select r.oid from pg_roles r where r.rolname = session_user))
$$;
revoke execute on function pipeline.cache_role from public;

-- The caller's role, if it may share. Raises insufficient_privilege.
create or replace function pipeline.cache_sharer() returns oid
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    v_role constant oid := pipeline.cache_role();
begin
    if not has_function_privilege(v_role, 'pipeline.cache_get(bytea,text,bigint,text,bigint,float8)', 'execute') then
        raise insufficient_privilege using
            message = 'this role may not share values of the cache',
            hint = 'Grant it execute on function pipeline.cache_get.';
    end if;
    return v_role;
end
$$;
revoke execute on function pipeline.cache_sharer from public;

-- The row of a key; when there is none, the right to load it, or how long to wait for the one who has that right.
-- p_refused, p_refused_at: version and snapshot of a row that the caller cannot use; it is taken for none.
-- p_owner: who loads, if it comes to that; p_lease: for how many seconds.
-- Always one row. version null: there is none; then wait_ms null: load it.
create or replace function pipeline.cache_get(
    p_key bytea, p_epoch text, p_refused bigint, p_refused_at text, p_owner bigint, p_lease float8,
    out version bigint, out snapshot text, out upper text, out tags text[], out value bytea, out load_ms real, out left_s float8,
    out wait_s float8
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_role constant oid := pipeline.cache_role();
    v_leads boolean := false;
begin
    loop
        select r.version, r.snapshot::text, r.upper::text, r.tags, r.value, r.load_ms,
            extract(epoch from r.expires_at - pipeline.now())::float8
        into version, snapshot, upper, tags, value, load_ms, left_s
        from (
            select c.* from pipeline.cache_0 c where c.role = v_role and c.key = p_key
            union all
            select c.* from pipeline.cache_1 c where c.role = v_role and c.key = p_key
        ) r
        where r.epoch = p_epoch and (r.expires_at is null or r.expires_at > pipeline.now())
            and (p_refused is null or r.version <> p_refused or r.snapshot::text <> p_refused_at)
        order by pg_snapshot_xmax(r.snapshot) desc
        limit 1;
        if found or v_leads then
            exit;
        end if;
        insert into pipeline.cache_lease as l (role, key, owner, until)
        values (v_role, p_key, p_owner, pipeline.now() + make_interval(secs => least(p_lease, 60)))
        on conflict (role, key) do update set owner = excluded.owner, until = excluded.until
            where l.until < pipeline.now() or l.owner = excluded.owner;
        if not found then
            select extract(epoch from l.until - pipeline.now())::float8 into wait_s
            from pipeline.cache_lease l where l.role = v_role and l.key = p_key;
            wait_s := greatest(coalesce(wait_s, 0), 0);
            return;
        end if;
        v_leads := true; -- whoever led before may have written the row since we looked
    end loop;
    if version is not null and v_leads then
        delete from pipeline.cache_lease l where l.role = v_role and l.key = p_key and l.owner = p_owner;
    end if;
end
$$;

-- How many bytes each of the two halves may have.
create or replace function pipeline.cache_half_bytes() returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select value::bigint / 2 from pipeline.setting where name = 'cache_shared_max_bytes'
$$;
revoke execute on function pipeline.cache_half_bytes from public;

-- Which half is written now, as the name of its table, or null when it is full.
create or replace function pipeline.cache_open_half() returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_name constant text := 'pipeline.cache_' || (select last_value from pipeline.cache_half);
begin
    return case when pg_total_relation_size(v_name) < pipeline.cache_half_bytes() then v_name end;
end
$$;
revoke execute on function pipeline.cache_open_half from public;

-- Store values, in place of what is older, and end the caller's leases on them. p_tags: a JSON array each.
-- p_ttls: seconds, null without end. Returns a snapshot that sees all that the values can contain, or null where there
-- is no room; an epoch that has ended stores nothing.
create or replace function pipeline.cache_put(
    p_epoch text, p_owner bigint, p_keys bytea[], p_versions bigint[], p_namespaces text[], p_values bytea[],
    p_tags text[], p_snapshots text[], p_ttls float8[], p_load_ms real[]
) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_role constant oid := pipeline.cache_sharer();
    v_half constant text := pipeline.cache_open_half();
    v_upper constant pg_snapshot := pg_current_snapshot();
begin
    if v_half is not null and p_epoch = pipeline.epoch() then
        execute format('insert into %s as c (role, key, version, namespace, epoch, snapshot, upper, tags, value, load_ms,
                                             expires_at, raised_at)
            select $1, u.key, u.version, u.namespace, $2, u.snapshot::pg_snapshot, $11,
                array(select json_array_elements_text(u.tags::json)), u.value, u.load_ms,
                pipeline.now() + make_interval(secs => u.ttl), pipeline.now()
            from unnest($3, $4, $5, $6, $7, $8, $9, $10)
                u(key, version, namespace, value, tags, snapshot, ttl, load_ms)
            where length(u.key) <= 64 and length(u.value) <= 1048576 and length(u.tags) <= 65536
                and length(u.namespace) <= 200
            order by u.key
            on conflict (role, key) do update
            set version = excluded.version, namespace = excluded.namespace, epoch = excluded.epoch,
                snapshot = excluded.snapshot, upper = excluded.upper, tags = excluded.tags, value = excluded.value,
                load_ms = excluded.load_ms, expires_at = excluded.expires_at, raised_at = excluded.raised_at
            where c.epoch <> excluded.epoch or c.expires_at < pipeline.now()
                or pg_snapshot_xmax(excluded.snapshot) >= pg_snapshot_xmax(c.snapshot)', v_half)
        using v_role, p_epoch, p_keys, p_versions, p_namespaces, p_values, p_tags, p_snapshots, p_ttls, p_load_ms,
            v_upper;
    end if;
    if v_half is not null then
        perform pipeline.cache_release(p_owner, p_keys);
        return v_upper::text;
    end if;
    return null;
end
$$;

-- Raise the snapshots of rows that hold these versions, and keep them in the half that is written now. Rows that
-- somebody raised in the last five seconds stay as they are. Returns whether there was room.
create or replace function pipeline.cache_raise(
    p_epoch text, p_keys bytea[], p_versions bigint[], p_snapshot text
) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_role constant oid := pipeline.cache_sharer();
    v_half constant text := pipeline.cache_open_half();
    v_other constant text := translate(v_half, '01', '10');
begin
    if v_half is null or p_epoch <> pipeline.epoch() then
        return v_half is not null;
    end if;
    -- in the order of keys, as cache_put does, so that two never wait for each other
    execute format('with due as materialized (
            select c.role, c.key from %s c join unnest($3, $4) u(key, version) using (key, version)
            where c.role = $1 and c.epoch = $2 and c.raised_at < pipeline.now() - interval ''5 seconds''
            order by c.key for no key update of c)
        update %1$s c set snapshot = $5::pg_snapshot, raised_at = pipeline.now() from due
        where c.role = due.role and c.key = due.key', v_half)
    using v_role, p_epoch, p_keys, p_versions, p_snapshot;
    execute format('insert into %s (role, key, version, namespace, epoch, snapshot, upper, tags, value, load_ms, expires_at, raised_at)
        select c.role, c.key, c.version, c.namespace, c.epoch, $5::pg_snapshot, c.upper, c.tags,
            c.value, c.load_ms, c.expires_at, pipeline.now()
        from %s c join unnest($3, $4) u(key, version) using (key, version)
        where c.role = $1 and c.epoch = $2
        order by c.key
        on conflict do nothing', v_half, v_other)
    using v_role, p_epoch, p_keys, p_versions, p_snapshot;
    return true;
end
$$;

-- End the caller's leases on these keys.
create or replace function pipeline.cache_release(p_owner bigint, p_keys bytea[]) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_role constant oid := pipeline.cache_sharer();
begin
    delete from pipeline.cache_lease l using (
        select e.role, e.key from pipeline.cache_lease e
        where e.role = v_role and e.key = any (p_keys) and e.owner = p_owner
        order by e.key for update
    ) mine
    where l.role = mine.role and l.key = mine.key;
end
$$;

-- Empty the older half and write into it from now on, if the newer one is full; also forgets leases that are long
-- over. Returns whether there is room now. Waits at most 100 ms for those who read it.
create or replace function pipeline.cache_turn() returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '100ms'
as $$
begin
    perform pipeline.cache_sharer();
    if not pg_try_advisory_xact_lock(1885697639, 19) then
        return false;
    end if;
    if pipeline.cache_open_half() is not null then
        return true;
    end if;
    delete from pipeline.cache_lease l where l.until < pipeline.now() - interval '1 minute';
    if (select last_value from pipeline.cache_half) = 0 then
        truncate pipeline.cache_1;
        perform setval('pipeline.cache_half', 1);
    else
        truncate pipeline.cache_0;
        perform setval('pipeline.cache_half', 0);
    end if;
    return pipeline.cache_open_half() is not null;
exception when lock_not_available then
    return false;
end
$$;
