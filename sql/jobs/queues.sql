-- queues: the names of all queues that ever had a job
-- locks: none
select distinct l.queue from pipeline.lane l order by l.queue
