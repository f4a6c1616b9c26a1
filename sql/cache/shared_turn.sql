-- shared_turn: empties the older half of the shared values when the newer one is full; whether there is room now
-- locks: ACCESS EXCLUSIVE on the older half, for at most 100 ms of waiting; advisory (1885697639, 19), never waits
select pipeline.cache_turn()
