-- set_queue: sets what is given for a queue, keeps the rest; 0 takes a limit away
-- $1 text: queue   $2 int: how many at once   $3 int: how many may begin   $4 float8: in so many seconds
-- $5 int: how many one worker runs at once   $6 int: weight
-- locks: those of pipeline.set_queue
select pipeline.set_queue($1, $2, $3, coalesce(make_interval(secs => $4::float8), '1 second'), $5, $6)
