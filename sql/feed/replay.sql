-- replay: batches that were broadcast after a given one, at most 500
-- $1 bigint: the number of the last batch seen
-- locks: none
-- index: ring_0_pkey, ring_1_pkey
select seq, payload from pipeline.ring where seq > $1 order by seq limit 500
