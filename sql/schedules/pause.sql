-- pause: see pipeline.pause_schedule
-- $1 text: schedule
-- locks: the row
select pipeline.pause_schedule($1)
