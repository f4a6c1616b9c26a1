-- draining: the state of a queue, and how many jobs it still has to end before it is drained
-- $1 text: queue
-- locks: none
select q.state, (
    select count(*) from pipeline.job j where j.queue = q.name and j.pos is not null and j.pos <= q.last_pos
) as left
from pipeline.queue q
where q.name = $1
