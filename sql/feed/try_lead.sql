-- try_lead: whether this session now holds the leader's lock; held until the session ends
-- locks: advisory (1885697639, 2), never waits
select pg_try_advisory_lock(1885697639, 2)
