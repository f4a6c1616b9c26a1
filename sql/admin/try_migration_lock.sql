-- try_migration_lock: whether this session may migrate now; held until the session ends
-- locks: advisory (1885697639, 1), never waits
select pg_try_advisory_lock(1885697639, 1)
