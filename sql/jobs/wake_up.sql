-- wake_up: gives back the lock that fall_asleep took
-- $1 text: queue
-- locks: none
select pg_advisory_unlock(1885697640, hashtext($1))
