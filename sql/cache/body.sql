-- body: the tree that Postgres made of the body of a function of this session's own
-- $1 name: the function's name
-- locks: none
select p.prosqlbody::text as tree
from pg_proc p
where p.pronamespace = pg_my_temp_schema() and p.proname = $1
