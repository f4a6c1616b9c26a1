-- change_writers: the transactions that may have changes of state that are not committed yet
-- locks: none
select distinct l.virtualtransaction as writer
from pg_catalog.pg_locks as l
where l.locktype = 'relation' and l.relation = 'pipeline.alert_history'::regclass and l.mode = 'RowExclusiveLock' and l.granted
  and l.database = (select d.oid from pg_catalog.pg_database as d where d.datname = current_database())
