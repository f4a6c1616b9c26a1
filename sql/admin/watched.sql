-- watched: the watched tables, and why one of them may not report everything
-- locks: none
select relation, keys, columns, timing, durable, problem from pipeline.watched() order by relation
