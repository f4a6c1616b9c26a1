-- long_transaction: the age of the oldest open transaction of a client in this database
-- locks: none
-- Walsenders, workers and sessions of pgreflex itself are left out; those of others show without their query.
select '{}'::jsonb as labels, coalesce(a.age, 0) as value, 1::bigint as samples,
    coalesce(format('process %s (%s, %s, %s)', a.pid, a.usename, a.application_name, a.state), '') as detail
from (select) as one
left join lateral (
    select extract(epoch from pipeline.now() - s.xact_start)::float8 as age, s.pid, s.usename, s.application_name, s.state
    from pg_stat_activity as s
    where s.datname = current_database() and s.backend_type = 'client backend' and s.pid <> pg_backend_pid()
      and s.xact_start is not null and s.application_name not like 'pgreflex %'
    order by s.xact_start
    limit 1
) as a on true
