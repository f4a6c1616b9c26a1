-- run: see pipeline.run_schedule
-- $1 text: schedule
-- locks: none that anyone waits for
select pipeline.run_schedule($1)
