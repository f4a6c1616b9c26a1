-- clear_baseline: forgets all counters that the last look saw
-- locks: the rows
delete from pipeline.statement_seen
