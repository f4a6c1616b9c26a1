-- turn: lets writers go over to the emptied tables; returns whether they had stopped writing
-- $1 bigint: the term
-- locks: the row of pipeline.leader in share mode; advisory (1885697639, 4), for this statement
select pipeline.turn($1)
