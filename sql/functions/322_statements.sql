-- What pg_stat_statements counted over the last `over`, the statements that took most time first; needs no daemon, but
-- counts come only from looks that one took. One row a fingerprint; a statement whose text is not known yet has a row of
-- its own without one. The last row, if any, has neither a fingerprint nor query ids: all other statements together.
-- share: of the time of all. max_ms: null where it cannot be known. seconds: how much time was watched, in which all
-- this happened. lost: more may have happened than is counted.
create or replace function pipeline.statements(over interval default '1 hour', most int default 100)
returns table (
    fingerprint text, queryids bigint[], text text, calls bigint, total_ms double precision, mean_ms double precision,
    max_ms double precision, rows bigint, share double precision, shared_hit bigint, shared_read bigint,
    shared_dirtied bigint, shared_written bigint, temp_read bigint, temp_written bigint, read_ms double precision,
    write_ms double precision, wal_bytes bigint, plans bigint, plan_ms double precision, seconds double precision,
    lost bool
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_level constant int := case
        when statements.over <= interval '3 hours' then 60
        when statements.over <= interval '1 day' then 300
        when statements.over <= interval '7 days' then 3600
        else 86400
    end;
    v_from constant timestamptz := date_bin(
        make_interval(secs => v_level), pipeline.now() - statements.over, timestamptz 'epoch');
    v_database constant oid := (select d.oid from pg_database as d where d.datname = current_database());
begin
    return query
    with round as materialized (
        select r.seconds, r.start, r.covered, r.deallocs + r.vanished + r.rebased + r.gaps > 0 as lost
        from pipeline.statement_round as r
        where r.start >= v_from
          and (r.seconds = v_level or (r.seconds < v_level and not r.rolled))
          -- what one look made up for after a long pause belongs to no short span
          and r.since >= v_from - make_interval(secs => v_level + 60)
    ),
    span as (
        select sum(r.covered) as seconds, bool_or(r.lost) as lost from round as r
    ),
    entry as (
        select w.queryid, w.userid, w.toplevel, sum(w.calls) as calls, sum(w.total_ms) as total_ms,
            sum(w.rows) as rows, sum(w.shared_hit) as shared_hit, sum(w.shared_read) as shared_read,
            sum(w.shared_dirtied) as shared_dirtied, sum(w.shared_written) as shared_written,
            sum(w.temp_read) as temp_read, sum(w.temp_written) as temp_written, sum(w.read_ms) as read_ms,
            sum(w.write_ms) as write_ms, sum(w.wal_bytes) as wal_bytes, sum(w.plans) as plans,
            sum(w.plan_ms) as plan_ms, max(w.low_max) as low_max, max(w.high_max) as high_max
        from round as r
        join pipeline.statement_window as w on w.seconds = r.seconds and w.start = r.start
        group by w.queryid, w.userid, w.toplevel
    ),
    named as (
        select e.*, pipeline.fingerprint_now(i.fingerprint) as fingerprint
        from entry as e
        left join pipeline.query_id as i on i.dbid = v_database and i.userid = e.userid and i.queryid = e.queryid
            and i.toplevel = e.toplevel
    )
    select n.fingerprint, array_agg(distinct n.queryid) filter (where n.queryid <> 0), q.text,
        sum(n.calls)::bigint, sum(n.total_ms), sum(n.total_ms) / nullif(sum(n.calls)::float8, 0),
        case when max(n.low_max) = max(n.high_max) and sum(n.calls) > 0 then max(n.high_max) end,
        sum(n.rows)::bigint, sum(n.total_ms) / nullif(sum(sum(n.total_ms)) over (), 0),
        sum(n.shared_hit)::bigint, sum(n.shared_read)::bigint, sum(n.shared_dirtied)::bigint,
        sum(n.shared_written)::bigint, sum(n.temp_read)::bigint, sum(n.temp_written)::bigint, sum(n.read_ms),
        sum(n.write_ms), sum(n.wal_bytes)::bigint, sum(n.plans)::bigint, sum(n.plan_ms), s.seconds, s.lost
    from named as n
    cross join span as s
    left join pipeline.query as q on q.fingerprint = n.fingerprint
    group by n.fingerprint, case when n.fingerprint is null then n.queryid end, q.text, s.seconds, s.lost
    order by bool_and(n.queryid = 0), sum(n.total_ms) desc, min(n.queryid)
    limit statements.most;
end
$$;
