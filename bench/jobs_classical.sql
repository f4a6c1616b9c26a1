-- The queue that most programs write for themselves: a state column, SKIP LOCKED, an update for each job claimed.
create table queue_job (
    id bigint generated always as identity primary key,
    queue text not null default 'default',
    task text not null,
    args jsonb not null default '{}',
    state smallint not null default 0,
    priority smallint not null default 0,
    run_at timestamptz not null default now(),
    created_at timestamptz not null default now(),
    max_attempts int not null default 5,
    attempt int not null default 0,
    worker int,
    leased_until timestamptz
) with (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0
);
create index queue_job_ready on queue_job (queue, priority, run_at, id) where state = 0;

create table queue_archive (
    id bigint not null,
    queue text not null,
    priority smallint not null,
    task text not null,
    args jsonb not null,
    state text not null,
    attempt int not null,
    max_attempts int not null,
    created_at timestamptz not null,
    run_at timestamptz not null,
    finished_at timestamptz not null default statement_timestamp(),
    worker int
);
create index queue_archive_id on queue_archive using brin (id) with (pages_per_range = 16);
