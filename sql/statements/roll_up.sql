-- roll_up: sums up the closed windows of one level into the next, with a bounded number of statements by name
-- $1 int: the level, in seconds
-- $2 int: the coarser level
-- $3 int: how many statements are kept by name
-- locks: the rows; run under the lock of the watch
with closed as materialized (
    update pipeline.statement_round as r
    set rolled = true
    from pipeline.statement_watch as l
    where r.seconds = $1
      and not r.rolled
      -- no look will be added to them: those to come lie in the window of the last one or later
      and r.start < date_bin(make_interval(secs => $2::int), l.at - interval '30 seconds', timestamptz 'epoch')
    returning r.*, date_bin(make_interval(secs => $2::int), r.start, timestamptz 'epoch') as bucket
),
summed as (
    select c.bucket, w.queryid, w.userid, w.toplevel,
        sum(w.calls) as calls, sum(w.total_ms) as total_ms, sum(w.rows) as rows,
        sum(w.shared_hit) as shared_hit, sum(w.shared_read) as shared_read,
        sum(w.shared_dirtied) as shared_dirtied, sum(w.shared_written) as shared_written,
        sum(w.temp_read) as temp_read, sum(w.temp_written) as temp_written,
        sum(w.read_ms) as read_ms, sum(w.write_ms) as write_ms, sum(w.wal_bytes) as wal_bytes,
        sum(w.plans) as plans, sum(w.plan_ms) as plan_ms,
        max(w.low_max) as low_max, max(w.high_max) as high_max,
        row_number() over (partition by c.bucket order by w.queryid = 0, sum(w.total_ms) desc, w.queryid) as place
    from closed as c
    join pipeline.statement_window as w on w.seconds = c.seconds and w.start = c.start
    group by c.bucket, w.queryid, w.userid, w.toplevel
),
stored as (
    insert into pipeline.statement_window (
        seconds, start, queryid, userid, toplevel, calls, total_ms, rows,
        shared_hit, shared_read, shared_dirtied, shared_written, temp_read, temp_written,
        read_ms, write_ms, wal_bytes, plans, plan_ms, low_max, high_max
    )
    select $2::int, s.bucket, k.queryid, k.userid, k.toplevel, sum(s.calls), sum(s.total_ms), sum(s.rows),
        sum(s.shared_hit), sum(s.shared_read), sum(s.shared_dirtied), sum(s.shared_written),
        sum(s.temp_read), sum(s.temp_written), sum(s.read_ms), sum(s.write_ms), sum(s.wal_bytes),
        sum(s.plans), sum(s.plan_ms), max(s.low_max), max(s.high_max)
    from summed as s
    cross join lateral (
        select case when s.place <= $3::int then s.queryid else 0 end as queryid,
            case when s.place <= $3::int then s.userid else 0 end as userid,
            s.toplevel or s.place > $3::int as toplevel
    ) as k
    group by s.bucket, k.queryid, k.userid, k.toplevel
)
insert into pipeline.statement_round (seconds, start, since, until, covered, deallocs, vanished, rebased, gaps)
select $2::int, c.bucket, min(c.since), max(c.until), sum(c.covered), sum(c.deallocs), sum(c.vanished), sum(c.rebased),
    sum(c.gaps)
from closed as c
group by c.bucket
