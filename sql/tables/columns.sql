-- columns: the columns of a table, and whether COPY may write into it
-- A type stands without its length or precision: a cast to varchar(3) would cut a longer text instead of refusing it. -1
-- says so; for null it would be `character`, which is one of one letter.
-- $1 text: the table, as SQL would write it
-- locks: none
select
    n.nspname as schema,
    c.relname as "table",
    a.attname as name,
    pg_catalog.format_type(a.atttypid, -1) as type,
    t.typcategory = 'A' as "array",
    a.attgenerated <> '' as generated,
    c.relkind in ('r', 'p') and not c.relrowsecurity as copies
from pg_catalog.pg_class as c
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
join pg_catalog.pg_type as t on t.oid = a.atttypid
where c.oid = to_regclass($1) and c.relkind in ('r', 'p', 'v', 'm', 'f')
order by a.attnum
