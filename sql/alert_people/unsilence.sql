-- unsilence: ends a silence now; whether there was one
-- $1 bigint: its number
-- $2 text: who
-- locks: its row
select pipeline.unsilence($1, $2)
