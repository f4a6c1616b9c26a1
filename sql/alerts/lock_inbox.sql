-- lock_inbox: whether this transaction may take in what SQL raised; one at a time, to keep the order
-- locks: advisory (1885697639, 30), never waits
select pg_try_advisory_xact_lock(1885697639, 30)
