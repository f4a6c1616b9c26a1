-- shared_release: lets others load what this process was to load
-- $1 bigint: who
-- $2 bytea[]: the keys
-- locks: the rows of pipeline.cache_lease, in the order of keys
select pipeline.cache_release($1, $2)
