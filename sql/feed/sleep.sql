-- sleep: waits until every writer that kept silent has ended; from the moment it waits, writers ring
-- locks: advisory (1885697639, 3) exclusive, for the session
select pg_advisory_lock(1885697639, 3)
