-- silence: tells nothing of what matches; returns the number
-- $1 jsonb: matchers
-- $2 text: the reason
-- $3 float8: for how many seconds, or null
-- $4 float8: until when in Unix seconds, or null
-- $5 text: who
-- locks: none
select pipeline.silence($1::jsonb, $2, make_interval(secs => $3::float8), to_timestamp($4::float8), $5)
