-- clock: what time the database has, in Unix seconds
-- locks: none
select extract(epoch from pipeline.now())::float8
