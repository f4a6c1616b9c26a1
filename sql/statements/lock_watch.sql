-- lock_watch: the last look, for whoever takes the next one; no row while somebody else is at it
-- locks: the row, until the transaction ends
select round, store, reset_at, read_at, deallocs, entries, extract(epoch from at)::float8 as at,
    extract(epoch from greatest(pipeline.now(), at))::float8 as now
from pipeline.statement_watch
for update skip locked
