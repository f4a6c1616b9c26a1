-- fall_asleep: makes whoever adds a job to a queue ring: 'mine' by the lock that this takes, 'others' by that of another
-- worker that sleeps, null when neither is so because jobs are being added at this moment
-- $1 text: queue
-- locks: advisory lock (1885697640, hash of the queue), for the session, tried only
select case
    when pg_try_advisory_lock(1885697640, hashtext($1)) then 'mine'
    when exists (
        select from pg_locks l
        where l.locktype = 'advisory' and l.granted and l.mode = 'ExclusiveLock' and l.objsubid = 2
            and l.database = (select d.oid from pg_database d where d.datname = current_database())
            and l.classid = 1885697640 and l.objid = (hashtext($1)::bigint & 4294967295)::oid
    ) then 'others'
end
