-- lock_lane: takes a lane, so that what the next statement sees of it stays so; null when another has it
-- $1 text: queue   $2 smallint: priority
-- locks: the lane's row, SKIP LOCKED
select l.mark from pipeline.lane l where l.queue = $1 and l.priority = $2 for update skip locked
