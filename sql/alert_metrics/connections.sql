-- connections: how many of the connections that clients may have are taken
-- locks: none
select '{}'::jsonb as labels,
    count(*)::float8 / (current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int) as value,
    1::bigint as samples, format('%s connections', count(*)) as detail
from pg_stat_activity
where backend_type = 'client backend'
