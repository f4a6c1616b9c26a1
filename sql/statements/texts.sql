-- texts: what statements look like
-- $1 bigint[]: query ids
-- locks: none that others wait for longer than it takes to read all texts
select (select oid from pg_database where datname = current_database()) as dbid, userid, queryid, toplevel, query
from pipeline.statement_texts($1::bigint[])
