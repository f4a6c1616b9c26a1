-- series: the ids of series; those that are new are noted
-- $1 text[]: series, each once
-- $2 text[]: their sources
-- $3 text[]: their names
-- $4 text[]: their labels, as JSON
-- locks: new rows, in the order of the series, so that two writers wait for each other at most; rows that were not written to
-- for an hour, SKIP LOCKED
select series, id from pipeline.timing_ids($1::text[], $2::text[], $3::text[], $4::text[])
