-- Reading pg_stat_statements, in whatever schema it is and whatever its version calls its columns. The functions run
-- with the rights of their caller, since what he may see decides what is counted.

-- What pg_stat_statements can tell here. version is null where the extension is not created, offered where its files
-- are missing. Never fails.
create or replace function pipeline.statement_source() returns table (
    loaded bool, version text, offered text, track text, query_ids text, reads_all bool, role_name text
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select exists (select from pg_settings as s where s.name = 'pg_stat_statements.max'),
        (select e.extversion from pg_extension as e where e.extname = 'pg_stat_statements'),
        (select a.default_version from pg_available_extensions as a where a.name = 'pg_stat_statements'),
        current_setting('pg_stat_statements.track', true),
        current_setting('compute_query_id', true),
        pg_has_role(current_user, 'pg_read_all_stats', 'usage'),
        current_user::text
$$;
revoke execute on function pipeline.statement_source from public;

-- Which counters there are now. name: server, timeline, database and whose statements the caller sees.
create or replace function pipeline.statement_store() returns table (
    name text, reset_at double precision, read_at double precision, deallocs bigint
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_schema constant text := (
        select n.nspname from pg_extension as e join pg_namespace as n on n.oid = e.extnamespace
        where e.extname = 'pg_stat_statements'
    );
begin
    return query execute format(
        $sql$
        select concat_ws('-',
                (select system_identifier from pg_control_system()),
                left(pg_walfile_name(pg_current_wal_lsn()), 8),
                (select oid from pg_database where datname = current_database()),
                case when pg_has_role(current_user, 'pg_read_all_stats', 'usage') then 'all'
                    else (select oid from pg_roles where rolname = current_user)::text end),
            extract(epoch from i.stats_reset)::float8, extract(epoch from clock_timestamp())::float8, i.dealloc
        from %I.pg_stat_statements_info as i
        $sql$, v_schema);
end
$$;
revoke execute on function pipeline.statement_store from public;

-- The counters of this database's statements, without their texts. queryid is null for those that the caller may not
-- see. counters: in the order of pipeline/core/statement_delta.py.
create or replace function pipeline.statement_counters() returns table (
    userid oid, queryid bigint, toplevel bool, since double precision, max_since double precision,
    max_ms double precision, counters double precision[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_schema text;
    v_names text[];
begin
    select n.nspname, p.proargnames into v_schema, v_names
    from pg_extension as e
    join pg_namespace as n on n.oid = e.extnamespace
    join pg_proc as p on p.pronamespace = n.oid and p.proname = 'pg_stat_statements'
    -- the extension's own: others may have one of this name in the same schema
    join pg_depend as d on d.classid = 'pg_proc'::regclass and d.objid = p.oid
        and d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid and d.deptype = 'e'
    where e.extname = 'pg_stat_statements';
    return query execute format(
        $sql$
        select s.userid, s.queryid, s.toplevel, %2$s, %3$s, s.max_exec_time, array[
            s.calls, s.total_exec_time, s.rows,
            s.shared_blks_hit, s.shared_blks_read, s.shared_blks_dirtied, s.shared_blks_written,
            s.temp_blks_read, s.temp_blks_written, %4$s, %5$s,
            s.wal_bytes, s.plans, s.total_plan_time]::float8[]
        from %1$I.pg_stat_statements(false) as s
        where s.dbid = (select oid from pg_database where datname = current_database())
        $sql$,
        v_schema,
        case when 'stats_since' = any (v_names) then 'extract(epoch from s.stats_since)::float8'
            else 'null::float8' end,
        case when 'minmax_stats_since' = any (v_names) then 'extract(epoch from s.minmax_stats_since)::float8'
            else 'null::float8' end,
        case when 'shared_blk_read_time' = any (v_names) then 's.shared_blk_read_time + s.local_blk_read_time'
            else 's.blk_read_time' end,
        case when 'shared_blk_write_time' = any (v_names) then 's.shared_blk_write_time + s.local_blk_write_time'
            else 's.blk_write_time' end);
end
$$;
revoke execute on function pipeline.statement_counters from public;

-- The texts of some statements of this database, cut at 64 kB. The server reads all texts for it.
create or replace function pipeline.statement_texts(p_queryids bigint[]) returns table (
    userid oid, queryid bigint, toplevel bool, query text
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_schema constant text := (
        select n.nspname from pg_extension as e join pg_namespace as n on n.oid = e.extnamespace
        where e.extname = 'pg_stat_statements'
    );
begin
    return query execute format(
        $sql$
        select s.userid, s.queryid, s.toplevel, left(s.query, 65536)
        from %I.pg_stat_statements(true) as s
        where s.queryid = any ($1) and s.dbid = (select oid from pg_database where datname = current_database())
        $sql$, v_schema) using p_queryids;
end
$$;
revoke execute on function pipeline.statement_texts from public;
