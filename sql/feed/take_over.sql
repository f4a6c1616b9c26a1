-- take_over: begin a term as leader; returns it
-- locks: the row of pipeline.leader, waits for a broadcast under way
select pipeline.take_over()
