-- prune: deletes parts of one level that are past their time and contained in the next level
-- $1 int: the level, in seconds
-- $2 float8: how long parts are kept, in seconds
-- $3 bool: whether this is the last level, which nothing contains
-- $4 bigint: how many at most
-- locks: the rows
delete from pipeline.latency_window as w
using (
    select series, start, writer, part
    from pipeline.latency_window
    where seconds = $1 and start < pipeline.now() - make_interval(secs => $2) and (rolled or $3)
    order by start
    limit $4
) as old
where w.seconds = $1
  and w.series = old.series
  and w.start = old.start
  and w.writer = old.writer
  and w.part = old.part
