-- types: what each type comes down to: a domain to its base, an array to its element
-- $1 oid[]: the types
-- locks: none
with recursive walk as (
    select t.oid as asked, t.oid, t.typtype, t.typbasetype from pg_type as t where t.oid = any($1)
    union all
    select w.asked, t.oid, t.typtype, t.typbasetype
    from walk as w
    join pg_type as t on t.oid = w.typbasetype
    where w.typtype = 'd'
)
select
    w.asked as oid,
    b.typname as name,
    n.nspname as schema,
    b.typtype = 'c' or b.typcategory = 'A' or b.oid = 'record'::regtype as nested,
    format_type(b.oid, null) as spelled,
    e.typname as element,
    m.nspname as element_schema
from walk as w
join pg_type as b on b.oid = w.oid
join pg_namespace as n on n.oid = b.typnamespace
left join pg_type as e on e.oid = b.typelem and b.typcategory = 'A'
left join pg_namespace as m on m.oid = e.typnamespace
where w.typtype <> 'd'
