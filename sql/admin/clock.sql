-- clock: what time it is on the server, for comparing clocks
-- locks: none
select clock_timestamp()
