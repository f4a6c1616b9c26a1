-- is_backend: one row if this server process answers, else none
-- $1 int: the number of a server process
-- locks: none
select where pg_backend_pid() = $1
