-- counters: what pg_stat_statements has counted of this database's statements, without texts
-- locks: none that others wait for longer than it takes to copy the counters
select * from pipeline.statement_counters()
