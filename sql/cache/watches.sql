-- watches: how relations are watched, and the names of their columns
-- $1 oid[]: the relations, of which none is a view
-- locks: none
select
    w.relation, w.name, w.top, w.tag, w.keys, w.columns, w.problem,
    (select array_agg(a.attname::text order by a.attnum) from pg_attribute a
     where a.attrelid = w.relation and a.attnum > 0) as names
from pipeline.watched_over($1::oid[]) w
