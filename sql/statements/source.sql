-- source: what pg_stat_statements can tell this role in this database
-- locks: none
select * from pipeline.statement_source()
