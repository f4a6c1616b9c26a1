-- rate_limit: whether the caller may go on; a yes is counted
-- $1 text: key   $2 int: how often   $3 float8: in so many seconds
-- locks: the key's limiter row
select pipeline.rate_limit($1, $2, make_interval(secs => $3::float8))
