-- turn: lets writers go over to the emptied tables
-- $1 bigint: the term
-- locks: the row of pipeline.leader
select pipeline.turn($1)
