-- watched_rights: the watched tables, what is amiss with each, and whether this role may put triggers on it
-- locks: none
select
    coalesce(pipeline.tag_of(w.relation), w.tag) as relation,
    pipeline.watch_problem(w) as problem,
    has_table_privilege(w.relation, 'trigger') as may_trigger
from pipeline.watch w
order by 1
