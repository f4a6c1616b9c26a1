-- add_round: adds a look to the window in which most of it lies
-- $1 float8: the start of the window of a minute, in Unix seconds
-- $2 float8: the start of what is counted
-- $3 float8: its end
-- $4 float8: how many seconds of it are known
-- $5 bigint: how often entries were evicted
-- $6 bigint: entries that are gone
-- $7 bigint: entries whose counters went back
-- $8 int: 1 where it could not be compared with the look before
-- locks: the row
insert into pipeline.statement_round as r (seconds, start, since, until, covered, deallocs, vanished, rebased, gaps)
values (60, to_timestamp($1), to_timestamp($2), to_timestamp($3), $4, $5, $6, $7, $8)
on conflict (seconds, start) do update
    set since = least(r.since, excluded.since), until = greatest(r.until, excluded.until),
        covered = r.covered + excluded.covered, deallocs = r.deallocs + excluded.deallocs,
        vanished = r.vanished + excluded.vanished, rebased = r.rebased + excluded.rebased,
        gaps = r.gaps + excluded.gaps
