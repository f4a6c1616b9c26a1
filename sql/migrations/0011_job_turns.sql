-- Turns and limits: jobs of one key share a lane, so keys take turns and a limit is checked under the lane's lock.
--
-- Theory of operation. A lane belongs to a queue, a priority and a key; jobs without a key share the lane ''. The lane's
-- row is only ever locked, never updated by a claim: what a claim changes is appended as a new lane_state, and the state
-- before it is deleted. So a reader goes backwards through an index from the newest state, which is the first it meets; a
-- snapshot that somebody holds open for hours keeps all the old ones, and nobody has to step over them.
--
-- A claim locks the lane in one statement and reads its state in the next, under a newer snapshot: that is why it is a
-- function (230_claim.sql). Limits are counted from the leases themselves, never from a counter that a late worker could
-- lower twice: the jobs that run are those that leases list, and whatever ends a job takes it off its lease.

alter table pipeline.job
    add column key text not null default '' check (length(key) <= 200),
    add column needs int not null default 0 check (needs >= 0),
    add column lost smallint not null default 0,
    add column expires_at timestamptz,
    add column workflow bigint;
comment on column pipeline.job.key is 'Whose job it is: jobs of one key share its limits, and keys take turns.';
comment on column pipeline.job.needs is 'How many jobs must end before this one may run.';
comment on column pipeline.job.lost is 'How many workers vanished while they held the job; the third ends it.';
comment on column pipeline.job.expires_at is 'A job that has not begun by then never will.';

drop index pipeline.job_ready;
create index job_ready on pipeline.job (queue, priority, key, pos) where pos is not null;
drop index pipeline.job_delayed;
create index job_delayed on pipeline.job (queue, run_at) where pos is null and needs = 0;
create index job_expiring on pipeline.job (expires_at) where expires_at is not null;

drop table pipeline.lane, pipeline.lane_request;

create table pipeline.lane (
    queue text not null,
    priority smallint not null,
    key text not null default '',
    last_pos bigint,
    limited bool not null default false,
    primary key (queue, priority, key)
);
comment on table pipeline.lane is 'One row per queue, priority and key; the lock under which jobs are handed out.';
comment on column pipeline.lane.last_pos is 'No position beyond this one is handed out: the queue is paused or drained.';
comment on column pipeline.lane.limited is 'The queue has a limit, which a claim has to check.';
create index lane_turns on pipeline.lane (queue, priority, key) where key <> '' or limited;

create table pipeline.lane_state (
    queue text not null,
    priority smallint not null,
    key text not null,
    n bigint not null,
    mark bigint not null default 0,
    settled bigint not null default 0,
    settling bigint not null default 0,
    settling_xid xid8,
    oldest_lease bigint not null default 0,
    swept_at timestamptz not null default '-infinity',
    searched_at timestamptz not null default '-infinity',
    primary key (queue, priority, key, n)
) with (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_threshold = -1
);
comment on table pipeline.lane_state is 'What a lane has handed out; of each lane only the row with the highest n holds.';
comment on column pipeline.lane_state.mark is 'Every position up to this one was handed out.';
comment on column pipeline.lane_state.settled is 'No job can appear at or below this position any more.';
comment on column pipeline.lane_state.settling is 'Becomes settled once every transaction up to settling_xid has ended.';
comment on column pipeline.lane_state.oldest_lease is 'No lease of this lane with a lower id is left.';

-- A producer never creates a lane itself: two that did so in long transactions would wait for each other, or deadlock.
-- It leaves a note here, which cannot collide with anything, and a worker makes the lane.
create table pipeline.lane_request (
    queue text not null,
    priority smallint not null,
    key text not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
comment on table pipeline.lane_request is 'Lanes that producers missed; a worker makes them.';

insert into pipeline.lane_request (queue, priority, key) select distinct j.queue, j.priority, '' from pipeline.job j;

alter table pipeline.lease
    add column key text not null default '',
    add column counted bool not null default false,
    add column started bigint[] not null default '{}';
comment on column pipeline.lease.counted is 'Limits count the jobs of this lease, so each is taken off when it ends.';
comment on column pipeline.lease.started is 'Jobs once lost with a worker that this one has begun; see pipeline.job.lost.';
create index lease_lane on pipeline.lease (queue, priority, key, id);
create index lease_key on pipeline.lease (key) where key <> '';

create table pipeline.queue (
    name text primary key check (name <> '' and length(name) <= 200),
    concurrency int check (concurrency >= 1),
    rate int check (rate >= 1),
    rate_seconds double precision check (rate_seconds > 0),
    slots int check (slots >= 1),
    weight int not null default 1 check (weight between 1 and 1000),
    state text not null default 'running' check (state in ('running', 'paused', 'draining')),
    last_pos bigint,
    changed_at timestamptz not null default now(),
    check ((rate is null) = (rate_seconds is null))
);
comment on table pipeline.queue is 'Queues that somebody has set something for; all others run without limits.';
comment on column pipeline.queue.concurrency is 'How many of its jobs run at once, over all workers.';
comment on column pipeline.queue.slots is 'How many a worker runs at once, in place of the worker''s own setting.';
comment on column pipeline.queue.last_pos is 'As that of its lanes.';
comment on column pipeline.queue.weight is 'Its share of a worker whose slots all queues share.';

create table pipeline.key_rule (
    name text primary key check (name <> '' and name !~ ':' and length(name) <= 200),
    concurrency int check (concurrency >= 1),
    rate int check (rate >= 1),
    rate_seconds double precision check (rate_seconds > 0),
    check ((rate is null) = (rate_seconds is null))
);
comment on table pipeline.key_rule is 'Limits of keys: the rule `customer` holds for the keys `customer` and `customer:...`.';

-- A sliding window in 64 slots. 65 are kept, because the oldest may still lie within the window in part; so no window of
-- that length, wherever it begins, ever holds more than was allowed.
create table pipeline.limiter (
    name text primary key,
    slot_seconds double precision not null default 1,
    slot bigint not null default 0,
    counts int[] not null default array_fill(0, array[65])
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
comment on table pipeline.limiter is 'How often something was allowed lately; `queue:`, `key:` and `user:` tell whose it is.';

create table pipeline.task (
    name text primary key check (name <> '' and length(name) <= 500),
    queue text,
    priority smallint,
    max_attempts int,
    timeout interval,
    expires interval,
    key text,
    unique_by text,
    unique_for interval,
    unique_until text,
    on_clash text,
    sealed bool not null default false,
    seen_at timestamptz not null default now()
);
comment on table pipeline.task is 'What programs declare of their tasks; workers write it down, and pipeline.enqueue reads it.';
comment on column pipeline.task.key is 'Template of the key: {name} stands for that argument.';
comment on column pipeline.task.unique_by is 'Template of what makes a job unique, or * for all of its arguments.';

create table pipeline.job_unique (
    key text primary key,
    job bigint not null,
    until text not null,
    kept_until timestamptz
) with (fillfactor = 80);
comment on table pipeline.job_unique is 'Which job holds a unique key; stale rows are taken over by the next one, or pruned.';

alter table pipeline.job_archive
    add column key text not null default '',
    add column lost smallint not null default 0,
    add column workflow bigint,
    drop constraint job_archive_state_check,
    add constraint job_archive_state_check check (state in ('finished', 'failed', 'cancelled', 'expired'));

drop function if exists pipeline.enqueue(text, jsonb, text, int, timestamptz, int, interval);
drop function if exists pipeline.request_lane(text, int);
