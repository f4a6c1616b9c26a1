-- alive: shows the server that this session's process still turns
-- locks: none
select 1
