-- drain: takes what was recorded in SQL out of the inbox, by series and window of five seconds
-- locks: the row of timing_inbox_place
select name, labels, start, ms from pipeline.drain_timings()
