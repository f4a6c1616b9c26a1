-- resume: see pipeline.resume_schedule
-- $1 text: schedule
-- locks: the row
select pipeline.resume_schedule($1)
