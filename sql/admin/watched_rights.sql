-- watched_rights: the watched tables, what is amiss with each, and whether this role may put triggers on it
-- locks: none
select
    w.relation,
    w.problem,
    has_table_privilege(to_regclass(w.relation), 'trigger') as may_trigger
from pipeline.watched() w
order by w.relation
