-- Schedules: jobs that come again and again.
--
-- Theory of operation. `until` is the mark of a schedule: every scheduled time up to it was dealt with. Any daemon may
-- look at a schedule that is due: it locks the row (and passes over rows that are locked), adds the jobs for the times
-- between the mark and now, and moves the mark, all in one transaction. So no daemon leads, none makes a run twice, and
-- a crash in between makes none at all; the next daemon does. The mark only moves forward, whatever the clock does.
-- The primary key of schedule_run guards each run once more, also against backfill.

create table pipeline.schedule (
    name text primary key check (name <> '' and length(name) <= 200),
    task text not null check (task <> '' and length(task) <= 500),
    args jsonb not null default '{}' check (jsonb_typeof(args) = 'object'),
    queue text check (queue <> '' and length(queue) <= 200),
    priority smallint,
    cron text not null check (length(cron) between 1 and 200),
    timezone text not null default 'UTC' check (length(timezone) between 1 and 100),
    missed text not null default 'one' check (missed in ('skip', 'one', 'all')),
    max_missed int not null default 100 check (max_missed between 1 and 10000),
    paused bool not null default false,
    source text not null default 'sql' check (source in ('code', 'sql')),
    until timestamptz not null,
    next_at timestamptz,
    last_at timestamptz,
    skipped bigint not null default 0,
    problem text,
    forgotten timestamptz,
    created_at timestamptz not null,
    seen_at timestamptz not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
comment on table pipeline.schedule is 'Jobs that come again and again; change it with the functions, pipeline.schedule() and its kin.';
comment on column pipeline.schedule.queue is 'Null means the queue of the task; so does priority.';
comment on column pipeline.schedule.missed is 'What becomes of runs that no daemon made in time: skip, one (the newest), all.';
comment on column pipeline.schedule.max_missed is 'How many runs `all` makes up at once; the newest.';
comment on column pipeline.schedule.until is 'Every scheduled time up to this one was dealt with. Never moves back.';
comment on column pipeline.schedule.next_at is 'When a daemon looks again: at the next run, soon when null, for another try where there is a problem.';
comment on column pipeline.schedule.last_at is 'The scheduled time of the newest run that was made.';
comment on column pipeline.schedule.skipped is 'How many scheduled times got no run, because of the policy for missed ones.';
comment on column pipeline.schedule.problem is 'Why it cannot run, or null.';
comment on column pipeline.schedule.forgotten is 'Runs up to this scheduled time are no longer known, so they cannot be filled in safely.';
comment on column pipeline.schedule.seen_at is 'When a daemon last had it in its code, where source is `code`.';

create table pipeline.schedule_run (
    name text not null,
    at timestamptz not null,
    job bigint,
    made_at timestamptz not null,
    primary key (name, at)
) with (autovacuum_vacuum_insert_scale_factor = 0.1);
comment on table pipeline.schedule_run is 'One row for each run that was made, kept 400 days: no run is made twice.';
comment on column pipeline.schedule_run.at is 'The scheduled time.';
comment on column pipeline.schedule_run.job is 'Null where a unique job stood in its way.';

-- rows come in the order of made_at
create index schedule_run_made on pipeline.schedule_run using brin (made_at) with (autosummarize = on);
