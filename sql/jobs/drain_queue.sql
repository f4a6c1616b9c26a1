-- drain_queue: hands out the jobs that are in line now, and none that comes later
-- $1 text: queue
-- locks: those of pipeline.set_queue
select pipeline.drain_queue($1)
