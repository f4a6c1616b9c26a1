-- wake: from now on writers need not ring; also undoes a sleep that was cancelled after it had its lock
-- locks: releases the session's advisory locks
select pg_advisory_unlock_all()
