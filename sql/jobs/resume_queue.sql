-- resume_queue: hands out jobs of a queue again
-- $1 text: queue
-- locks: those of pipeline.set_queue
select pipeline.resume_queue($1)
