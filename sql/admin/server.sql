-- server: whether this server can serve us
-- locks: none
select
    current_database()::text as database,
    current_setting('server_version') as version,
    current_setting('server_version_num')::int as version_num,
    pg_is_in_recovery() as in_recovery,
    current_setting('transaction_read_only')::bool as read_only
