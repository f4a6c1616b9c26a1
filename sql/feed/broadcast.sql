-- broadcast: sends batches to every follower and remembers them, if this term still leads
-- $1 bigint: the term
-- $2 text: the lineage
-- $3 bigint: the number of the first batch
-- $4 text[]: the batches
-- $5 text[]: what NOTIFY says for each
-- $6 text: the position reached with the last batch, or null in the middle of a round
-- locks: the row of pipeline.leader in share mode
select pipeline.broadcast($1, $2, $3, $4::text[], $5::text[], $6)
