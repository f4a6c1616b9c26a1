-- relations: what decides whether relations may be read through the cache; a view comes with its definition
-- $1 oid[]: the relations
-- locks: none
select
    c.oid, c.oid::regclass::text as name, c.relkind::text as kind, c.relpersistence::text as persistence,
    c.relrowsecurity as row_security, n.nspname as schema,
    (select r.ev_action::text from pg_rewrite r where r.ev_class = c.oid and r.ev_type = '1') as definition
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where c.oid = any ($1::oid[])
