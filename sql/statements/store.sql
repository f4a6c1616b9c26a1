-- store: which counters pg_stat_statements has now
-- locks: none
select * from pipeline.statement_store()
