-- Jobs: the live table, its lanes, leases and workers, and the archive.
--
-- Theory of operation. A job that may run has a position (`pos`); a delayed one has none. A lane (queue and priority)
-- holds a mark: every position up to it was handed out. A claim locks the lane, reads the next positions, advances the
-- mark and inserts one lease that lists the ids: it writes no job row, so a queue under load leaves no dead index
-- entries in front of its next claim. Whatever takes a job back (retry, rescue, release) gives it another position later.
--
-- Positions are drawn before their transactions commit, so a row may appear below the mark: a straggler. The default of
-- `pos` makes sure that the transaction has an id before it draws. Hence a straggler's transaction is older than any
-- transaction that began after the mark had passed it, and once all of those up to `settling_xid` have ended, nothing
-- can appear up to `settling` any more: `settled` follows, and the sweep looks between `settled` and `mark` only.
-- (The id of a transaction of our own is compared, not pg_snapshot_xmax: that is one past the newest transaction that has
-- ENDED, and running ones may lie beyond it.)
--
-- Priority: the LOWER number runs first.

create sequence pipeline.job_pos;

create table pipeline.job (
    id bigint generated always as identity primary key,
    pos bigint default case when pg_current_xact_id() is not null then nextval('pipeline.job_pos') end,
    run_at timestamptz not null default statement_timestamp(),
    created_at timestamptz not null default statement_timestamp(),
    timeout interval check (timeout > '0'),
    max_attempts int not null default 5 check (max_attempts >= 1),
    attempt int not null default 1 check (attempt >= 1),
    priority smallint not null default 0,
    queue text not null default 'default' check (queue <> '' and length(queue) <= 200),
    task text not null check (task <> '' and length(task) <= 500),
    args jsonb not null default '{}' check (jsonb_typeof(args) = 'object'),
    error text
) with (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.1,
    autovacuum_analyze_threshold = 5000,
    toast.autovacuum_vacuum_scale_factor = 0.02,
    toast.autovacuum_vacuum_cost_delay = 0
);
comment on table pipeline.job is 'Jobs that have not ended. A lower priority number runs first.';
comment on column pipeline.job.pos is 'Place in its lane; null while something holds the job back.';
comment on column pipeline.job.run_at is 'From when the job may run; the wait is measured from here.';
comment on column pipeline.job.attempt is 'The number of the run that is under way or comes next; the first is 1.';
comment on column pipeline.job.error is 'How the attempt before this one ended.';

create index job_ready on pipeline.job (queue, priority, pos) where pos is not null;
create index job_delayed on pipeline.job (queue, run_at) where pos is null;

create table pipeline.lane (
    queue text not null,
    priority smallint not null,
    mark bigint not null default 0,
    settled bigint not null default 0,
    settling bigint not null default 0,
    settling_xid xid8,
    swept_at timestamptz not null default '-infinity',
    searched_at timestamptz not null default '-infinity',
    primary key (queue, priority)
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);
comment on table pipeline.lane is 'One row per queue and priority; the lock under which jobs are handed out.';
comment on column pipeline.lane.mark is 'Every position up to this one was handed out.';
comment on column pipeline.lane.settled is 'No job can appear at or below this position any more.';
comment on column pipeline.lane.settling is 'Becomes settled once every transaction up to settling_xid has ended.';

-- A producer never creates a lane itself: two that did so in long transactions would wait for each other, or deadlock.
-- It leaves a note here, which cannot collide with anything, and a worker makes the lane.
create table pipeline.lane_request (
    queue text not null,
    priority smallint not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
comment on table pipeline.lane_request is 'Lanes that producers missed; a worker makes them.';

create table pipeline.worker (
    id bigint generated always as identity primary key,
    name text not null,
    queues text[] not null,
    started_at timestamptz not null,
    seen_at timestamptz not null
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
comment on table pipeline.worker is 'Processes that run jobs; seen_at is their heartbeat.';

create table pipeline.lease (
    id bigint generated always as identity primary key,
    worker bigint not null,
    queue text not null,
    priority smallint not null,
    made_at timestamptz not null,
    ids bigint[] not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
comment on table pipeline.lease is 'Jobs handed out together to one worker; whoever holds the row may end them.';

create table pipeline.job_archive (
    id bigint not null,
    queue text not null,
    priority smallint not null,
    task text not null,
    args jsonb not null,
    state text not null check (state in ('finished', 'failed', 'cancelled')),
    attempt int not null,
    max_attempts int not null,
    created_at timestamptz not null,
    run_at timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz not null,
    ms double precision,
    worker bigint,
    result jsonb,
    error text
) partition by range (finished_at);
comment on table pipeline.job_archive is 'Jobs that have ended, one partition a day (UTC); see pipeline.maintain_archive().';
comment on column pipeline.job_archive.ms is 'How long the last attempt ran.';

create table pipeline.job_archive_default partition of pipeline.job_archive default;

-- Ids grow with time, so a block range index finds one job at a hundredth of a btree's cost to the insert.
create index job_archive_id on pipeline.job_archive using brin (id) with (pages_per_range = 16, autosummarize = on);
create index job_archive_failed on pipeline.job_archive (finished_at) where state = 'failed';
