-- prune: deletes windows of one level that are past their time and contained in the next level
-- $1 int: the level, in seconds
-- $2 float8: how long windows are kept, in seconds
-- $3 bool: whether this is the last level, which nothing contains
-- locks: the rows
with gone as (
    delete from pipeline.statement_round
    where seconds = $1 and start < pipeline.now() - make_interval(secs => $2) and (rolled or $3)
    returning start
)
delete from pipeline.statement_window as w
using gone as g
where w.seconds = $1 and w.start = g.start
