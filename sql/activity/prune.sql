-- prune: deletes minutes that are past their time
-- $1 float8: how long they are kept, in seconds
-- locks: the rows
with gone as (
    delete from pipeline.activity_minute where start < pipeline.now() - make_interval(secs => $1::float8)
)
delete from pipeline.activity_window where start < pipeline.now() - make_interval(secs => $1::float8)
