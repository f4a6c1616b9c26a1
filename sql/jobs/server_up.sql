-- server_up: for how many seconds the server has been up
-- locks: none
select extract(epoch from clock_timestamp() - pg_postmaster_start_time())::float8
