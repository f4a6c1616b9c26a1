-- waits: what active sessions were at over a while, the most frequent first
-- $1 float8: how long, in seconds
-- $2 int: how many at most
-- locks: none
select wait_type, wait_event, fingerprint, text as query, samples, sessions, share from pipeline.waits(make_interval(secs => $1), $2)
