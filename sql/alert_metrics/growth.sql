-- growth: the size of this database, in bytes
-- locks: none
select '{}'::jsonb as labels, s.bytes::float8 as value, 1::bigint as samples, pg_size_pretty(s.bytes) as detail
from (select pg_database_size(current_database()) as bytes) as s
