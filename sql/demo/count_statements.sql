-- count_statements: lets pg_stat_statements, which the embedded server has loaded, count what the demo does
-- locks: none that others wait for
create extension if not exists pg_stat_statements
