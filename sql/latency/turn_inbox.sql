-- turn_inbox: empties the table of the inbox that rests, and lets writers go over to it when the other is large
-- $1 bigint: how large, in bytes
-- locks: ACCESS EXCLUSIVE on the table that rests, only if it can be had at once
select pipeline.turn_timing_inbox($1)
