-- try_migration_lock_briefly: whether this transaction may migrate now; held until the transaction ends
-- locks: advisory (1885697639, 1), never waits
select pg_try_advisory_xact_lock(1885697639, 1)
