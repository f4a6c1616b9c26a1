-- shared_raise: says of rows that they are still true; false: there is no room
-- $1 text: the epoch
-- $2 bytea[]: the keys
-- $3 bigint[]: the versions
-- $4 text: the snapshot that they contain
-- locks: the rows, in the order of keys
select pipeline.cache_raise($1, $2, $3, $4)
