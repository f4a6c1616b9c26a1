-- types: how texts are read as values of these types, and of the elements of those that are arrays
-- $1 oid[]: the types
-- locks: none
with recursive wanted as (
    select t.oid, t.typelem, t.typcategory from pg_type t where t.oid = any ($1::oid[])
    union
    select t.oid, t.typelem, t.typcategory
    from wanted w join pg_type t on t.oid = w.typelem where w.typcategory = 'A'
)
select t.oid, t.typname::text as name, t.typtype::text as kind, t.typcategory::text as category
from wanted w join pg_type t on t.oid = w.oid
