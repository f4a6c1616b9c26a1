-- try_consume: whether this session now holds the consumers' lock; held until the session ends
-- locks: advisory (1885697639, 5), never waits
select pg_try_advisory_lock(1885697639, 5)
