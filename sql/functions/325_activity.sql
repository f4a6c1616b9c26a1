-- What sessions were at, and who waits for whom.

-- What the active sessions of this database were at over the last `over` (48 hours are kept), the most frequent first.
-- wait_type: as in pg_stat_activity; `running` for sessions that waited for nothing, `other` for what was too rare to be kept
-- apart. samples: how often it was seen. sessions: how many were at it on average. share: of all active sessions.
create or replace function pipeline.waits(over interval default '1 hour', most int default 100)
returns table (
    wait_type text, wait_event text, fingerprint text, text text, samples bigint, sessions double precision,
    share double precision
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_from constant timestamptz := date_trunc('minute', pipeline.now() - waits.over);
    v_looks constant bigint := (select sum(m.samples) from pipeline.activity_minute as m where m.start >= v_from);
    v_database constant oid := (select d.oid from pg_database as d where d.datname = current_database());
begin
    return query
    with seen as (
        select w.wait_type, w.wait_event, w.queryid, sum(w.samples) as samples
        from pipeline.activity_window as w
        where w.start >= v_from
        group by w.wait_type, w.wait_event, w.queryid
    ),
    named as (
        select s.*, pipeline.fingerprint_now(
            (select min(i.fingerprint) from pipeline.query_id as i
                where i.dbid = v_database and i.queryid = s.queryid and s.queryid <> 0)) as fingerprint
        from seen as s
    )
    select case n.wait_type when '' then 'running' else n.wait_type end, nullif(n.wait_event, ''), n.fingerprint,
        q.text, sum(n.samples)::bigint, sum(n.samples)::float8 / v_looks,
        sum(n.samples)::float8 / sum(sum(n.samples)) over ()
    from named as n
    left join pipeline.query as q on q.fingerprint = n.fingerprint
    group by n.wait_type, n.wait_event, n.fingerprint, q.text
    order by sum(n.samples) desc, n.wait_type, n.wait_event, n.fingerprint
    limit waits.most;
end
$$;

-- Who waits for a lock in this database right now, the longest wait first. behind: who holds what is waited for, or waits for
-- it longest. root: who holds up all of them and waits for no lock himself; null for a prepared transaction, of which
-- root_state says so. depth: how many are in between, and one. text: of the statement that waits, root_text: of the last one
-- of the root; without values, and null where they are not known yet. Only what the caller may see.
create or replace function pipeline.blocked(most int default 100)
returns table (
    pid int, role text, application text, waited_seconds double precision, lock text, mode text, relation text,
    text text, behind int, root int, root_state text, root_role text, root_application text,
    root_transaction_seconds double precision, root_text text, depth int
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_database constant oid := (select d.oid from pg_database as d where d.datname = current_database());
begin
    return query
    with recursive session as materialized (
        select a.pid, a.usename::text as role, a.application_name, a.state, a.xact_start, a.query_id, a.query_start,
            a.wait_event_type is not distinct from 'Lock' as waits, a.datid
        from pg_stat_activity as a
    ),
    waiting as materialized (
        select s.pid, coalesce(l.waitstart, s.query_start) as since, l.locktype, l.mode,
            case when l.database = v_database then l.relation end as relation
        from session as s
        left join lateral (
            select k.waitstart, k.locktype, k.mode, k.relation, k.database
            from pg_locks as k where k.pid = s.pid and not k.granted limit 1
        ) as l on true
        where s.waits and s.datid = v_database
        order by since
        limit blocked.most
    ),
    -- One step for each: whoever waits for nothing, else whoever has waited longest. Queues have a pair for each two of them.
    step as materialized (
        select w.pid, b.pid as behind
        from waiting as w
        cross join lateral (
            select u.pid
            from unnest(pg_blocking_pids(w.pid)) as u (pid)
            left join waiting as o on o.pid = u.pid
            order by o.pid is not null, o.since, u.pid
            limit 1
        ) as b
    ),
    chain as (
        select s.pid, s.behind, s.behind as root, 1 as depth from step as s
        union all
        select c.pid, c.behind, s.behind, c.depth + 1
        from chain as c
        join step as s on s.pid = c.root
        where c.depth < 50  -- a deadlock has no end until the server finds it
    ),
    top_of as (
        select distinct on (c.pid) c.pid, c.behind, c.root, c.depth from chain as c order by c.pid, c.depth desc
    )
    select w.pid, s.role, s.application_name, extract(epoch from clock_timestamp() - w.since)::float8, w.locktype, w.mode,
        regexp_replace(w.relation::regclass::text, '^public\.', ''), pipeline.text_of(s.query_id), t.behind, nullif(t.root, 0),
        case when t.root = 0 then 'prepared transaction' else r.state end, r.role, r.application_name,
        extract(epoch from clock_timestamp() - r.xact_start)::float8, pipeline.text_of(r.query_id), t.depth
    from waiting as w
    join session as s on s.pid = w.pid
    join top_of as t on t.pid = w.pid
    left join session as r on r.pid = t.root
    order by w.since;
end
$$;
revoke execute on function pipeline.blocked from public;

-- What stands for a statement by its query id; null where that is not known.
create or replace function pipeline.text_of(p_queryid bigint) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select q.text
    from pipeline.query_id as i
    join pipeline.query as q on q.fingerprint = pipeline.fingerprint_now(i.fingerprint)
    where i.dbid = (select d.oid from pg_database as d where d.datname = current_database()) and i.queryid = p_queryid
    order by q.last_at desc
    limit 1
$$;
revoke execute on function pipeline.text_of from public;
