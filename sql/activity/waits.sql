-- waits: what active sessions were at over a while, the most frequent first
-- $1 interval: how long
-- $2 int: how many at most
-- locks: none
select wait_type, wait_event, fingerprint, text, samples, sessions, share from pipeline.waits($1, $2)
