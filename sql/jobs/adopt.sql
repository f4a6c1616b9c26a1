-- adopt: makes the lanes that producers asked for; returns how many are new
-- locks: the requests, SKIP LOCKED; advisory lock 11
select pipeline.adopt_lanes()
