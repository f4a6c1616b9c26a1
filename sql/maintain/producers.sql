-- producers: the transactions that have written to the live table and are not over
-- $1 text[]: only those of these; null means all
-- locks: none
select coalesce(array_agg(distinct l.virtualtransaction), '{}')
from pg_locks as l
where l.relation = 'pipeline.job'::regclass
    and l.database = (select d.oid from pg_database as d where d.datname = current_database())
    and l.mode = 'RowExclusiveLock'
    and l.granted
    and ($1::text[] is null or l.virtualtransaction = any($1))
