-- watched_rights: the watched tables, what is amiss with each, and whose member this role must be to mend its triggers
-- locks: none
select
    coalesce(pipeline.tag_of(w.relation), w.tag) as relation,
    pipeline.watch_problem(w) as problem,
    (select pg_get_userbyid(c.relowner)::text from pg_class c
     where c.oid = w.relation and not pg_has_role(c.relowner, 'usage')) as foreign_owner
from pipeline.watch w
order by 1
