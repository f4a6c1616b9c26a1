-- long_transaction: the age of the oldest open transaction of a client in this database; null: none is seen, and some are hidden
-- locks: none
-- Walsenders, workers and sessions of pgreflex itself are left out; those of others show without their query. Without the role
-- pg_read_all_stats the transactions of other roles are hidden, and what is told is the least that it can be.
select '{}'::jsonb as labels, case when h.hidden = 0 then coalesce(a.age, 0) else a.age end as value, 1::bigint as samples,
    concat_ws(
        '; ',
        case when a.age is not null then format('process %s (%s, %s, %s)', a.pid, a.usename, a.application_name, a.state) end,
        case when h.hidden > 0 then format('%s sessions are hidden: grant pg_read_all_stats', h.hidden) end
    ) as detail
from (
    select count(*) as hidden
    from pg_stat_activity as s
    where s.datname = current_database() and s.backend_type is null and s.usesysid is not null
) as h
left join lateral (
    select extract(epoch from pipeline.now() - s.xact_start)::float8 as age, s.pid, s.usename, s.application_name, s.state
    from pg_stat_activity as s
    where s.datname = current_database() and s.backend_type = 'client backend' and s.pid <> pg_backend_pid()
      and s.xact_start is not null and s.application_name not like 'pgreflex %'
    order by s.xact_start
    limit 1
) as a on true
