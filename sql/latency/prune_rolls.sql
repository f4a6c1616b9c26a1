-- prune_rolls: deletes rolls of one level that are past their time and contained in the next level, with their parts
-- $1 int: the level, in seconds
-- $2 float8: how long they are kept, in seconds
-- $3 bool: whether this is the last level, which nothing contains
-- $4 bigint: how many rolls at most
-- locks: the rows
with old as (
    delete from pipeline.timing_roll as r
    where r.seconds = $1
      and (r.start, r.part) in (
          select o.start, o.part
          from pipeline.timing_roll as o
          where o.seconds = $1 and o.start < pipeline.now() - make_interval(secs => $2) and (o.rolled or $3)
          order by o.start
          limit $4
      )
    returning r.start, r.part
)
delete from pipeline.timing_part as p
using old
where p.seconds = $1 and p.start = old.start and p.part = old.part
