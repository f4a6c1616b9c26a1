-- backend: which server process answers; two answers on one connection mean a pooler in between
-- locks: none
select pg_backend_pid()
