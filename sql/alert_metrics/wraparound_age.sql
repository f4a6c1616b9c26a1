-- wraparound_age: the age of the oldest transaction or multixact id of each database
-- locks: none
select jsonb_build_object('database', d.datname) as labels,
    greatest(age(d.datfrozenxid), mxid_age(d.datminmxid))::float8 as value, 1::bigint as samples, '' as detail
from pg_database as d
