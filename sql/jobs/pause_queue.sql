-- pause_queue: hands out no more jobs of a queue
-- $1 text: queue
-- locks: those of pipeline.set_queue
select pipeline.pause_queue($1)
