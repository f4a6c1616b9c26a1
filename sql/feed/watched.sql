-- watched: every watch, with what may be wrong with it
-- locks: none
select relation, keys, columns, timing, durable, problem from pipeline.watched()
