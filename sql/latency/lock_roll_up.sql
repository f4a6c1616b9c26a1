-- lock_roll_up: whether this transaction may roll up; one at a time
-- locks: advisory (1885697639, 20), never waits
select pg_try_advisory_xact_lock(1885697639, 20)
