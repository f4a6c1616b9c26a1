-- room: how many connections this session's role may have, by each limit that there is, and who has them
-- $1 text: the application name of the pool that asks, whose own connections do not count
-- locks: none
with me as (
    select
        r.oid as role,
        r.rolsuper as super,
        r.rolconnlimit as role_limit,
        d.oid as database,
        d.datconnlimit as database_limit,
        exists (
            select from pg_roles u
            where u.rolname = 'pg_use_reserved_connections' and pg_has_role(r.oid, u.oid, 'usage')
        ) as reserves
    from pg_roles r, pg_database d
    where r.rolname = session_user and d.datname = current_database()
),
others as (  -- what kind of backend it is, is hidden from roles that may not see it; then it counts as a client
    select a.usesysid, a.datid, a.application_name
    from pg_stat_activity a
    where a.datid is not null and a.usesysid is not null
      and coalesce(a.backend_type, 'client backend') = 'client backend'
      and a.application_name <> $1
)
select
    l.whose,
    l.most,
    l.reserved,
    count(o.application_name)::int as taken,
    array_agg(distinct o.application_name) filter (where o.application_name like '%(pool of %') as pools,
    pg_backend_pid() as backend
from me
cross join lateral (
    values
        (
            'max_connections',
            current_setting('max_connections')::int,
            case when me.super then 0 else current_setting('superuser_reserved_connections')::int end
            + case
                when me.super or me.reserves then 0
                else coalesce(current_setting('reserved_connections', true)::int, 0)
            end,
            null::oid,
            null::oid
        ),
        ('the connection limit of the role', case when me.super then -1 else me.role_limit end, 0, me.role, null),
        ('the connection limit of the database', case when me.super then -1 else me.database_limit end, 0, null, me.database)
) as l (whose, most, reserved, role, database)
left join others o
    on (l.role is null or o.usesysid = l.role) and (l.database is null or o.datid = l.database)
where l.most >= 0
group by l.whose, l.most, l.reserved
