-- baseline: the counters that the last look saw
-- locks: none
select userid, queryid, toplevel, since, max_since, max_ms, counters from pipeline.statement_seen
