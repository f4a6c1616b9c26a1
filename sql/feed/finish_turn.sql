-- finish_turn: notes who may still write into the tables of the last turn, in a transaction of its own
-- $1 bigint: the term
-- $2 bool: whether the outbox had been full, so that whoever wrote nothing then needs a flush
-- locks: the row of pipeline.leader
select pipeline.finish_turn($1, $2)
