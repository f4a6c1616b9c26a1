-- lane: deletes lanes of keys that have had no job for a while; returns how many
-- $1 float8: seconds
-- locks: see the function
select pipeline.prune_lanes(make_interval(secs => $1))
