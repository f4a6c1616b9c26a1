-- mark_rolled: notes that the next level contains these parts
-- $1 int: the level, in seconds
-- $2 text[]: series
-- $3 float8[]: starts, in seconds since the epoch
-- $4 text[]: writers
-- $5 bigint[]: parts
-- locks: the rows, which take_unrolled has locked
update pipeline.latency_window as w
set rolled = true
from unnest($2::text[], $3::float8[], $4::text[], $5::bigint[]) as p (series, start, writer, part)
where w.seconds = $1
  and w.series = p.series
  and w.start = to_timestamp(p.start)
  and w.writer = p.writer
  and w.part = p.part
