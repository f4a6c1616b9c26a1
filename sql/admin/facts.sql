-- facts: what decides whether this server and this role can serve us
-- locks: none
select
    current_setting('server_version') as version,
    current_setting('server_version_num')::int as version_num,
    pg_is_in_recovery() as in_recovery,
    current_setting('transaction_read_only')::bool as read_only,
    current_user::text as role_name,
    current_database()::text as database_name,
    (select r.rolsuper from pg_roles r where r.rolname = current_user) as superuser,
    has_database_privilege(current_database(), 'create') as may_create_schema,
    (select pg_has_role(n.nspowner, 'usage') from pg_namespace n where n.nspname = 'pipeline') as owns_schema,
    exists (select from pg_event_trigger t where t.evtname = 'pgreflex_ddl') as has_event_trigger,
    exists (select from pg_settings s where s.name = 'pg_stat_statements.max') as statements_loaded,
    (select e.extversion from pg_extension e where e.extname = 'pg_stat_statements') as statements_version,
    (select a.default_version from pg_available_extensions a where a.name = 'pg_stat_statements')
        as statements_offered,
    current_setting('pg_stat_statements.track', true) as statements_track,
    current_setting('compute_query_id', true) as query_ids,
    pg_has_role(current_user, 'pg_read_all_stats', 'usage') as reads_all,
    current_setting('max_connections')::int as max_connections,
    current_setting('superuser_reserved_connections')::int
        + coalesce(current_setting('reserved_connections', true), '0')::int as reserved_connections,
    (select count(*)::int from pg_stat_activity a where a.backend_type = 'client backend') as connections,
    current_setting('max_prepared_transactions')::int as max_prepared_transactions,
    pg_notification_queue_usage() as queue_usage
