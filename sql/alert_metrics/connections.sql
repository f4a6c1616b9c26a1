-- connections: how many of the connections that clients may have are taken
-- locks: none
-- Without the role pg_read_all_stats others do not show what they are; those of a role in a database count, too.
select '{}'::jsonb as labels,
    count(*)::float8 / (current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int) as value,
    1::bigint as samples, format('%s connections', count(*)) as detail
from pg_stat_activity
where backend_type = 'client backend'
   or (backend_type is null and datid is not null and usesysid is not null)
