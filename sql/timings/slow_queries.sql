-- slow_queries: the queries that took the most in a span
-- $1 float8: the span, in seconds
-- $2 text: by what they are ordered
-- $3 int: how many at most
-- $4 text: labels as JSON, or null
-- locks: none
select * from pipeline.slow_queries(make_interval(secs => $1), $2, $3, $4::text::jsonb)
