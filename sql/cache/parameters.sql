-- parameters: how the types of a query's parameters are written
-- $1 oid[]: the types, in order
-- locks: none
select coalesce(string_agg(format_type(t.type, null), ', ' order by t.n), '') as types
from unnest($1::oid[]) with ordinality t (type, n)
