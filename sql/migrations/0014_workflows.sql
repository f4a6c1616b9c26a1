-- Workflows: jobs that run only after others have ended.
--
-- Theory of operation. A job that waits for others counts them in `needs` and has no position until the count is 0. Whoever
-- ends a job does not look for those that wait for it: a trigger on the archive, which no way of ending a job goes past,
-- leaves one note (job_ended), at the same cost for one dependent as for ten thousand. Jobs outside a workflow pay the
-- trigger's condition only.
--
-- A resolver, one at a time, takes the notes: it follows the edges (job_need) that lead away from each job, at most so many
-- in a transaction, counts `needs` down or cancels, and deletes a note with its last edge. All of that is one transaction,
-- so a resolver that dies leaves the note, and the next one begins where the last commit was. What makes each step happen
-- once: an edge is met once (`met`), a job counts for its workflow when its state is first known (workflow_job.state), and
-- both change only under the lock of the workflow's row.
--
-- Results go along with the note to workflow_job, where those that wait for them find them by key. The archive has no index
-- that finds one job cheaply, and it is dropped by age, which a job held back for long must not notice.

create table pipeline.workflow (
    id bigint generated always as identity primary key,
    name text not null check (length(name) <= 200),
    state text not null default 'running' check (state in ('running', 'cancelling', 'finished', 'failed', 'cancelled')),
    on_failure text not null check (on_failure in ('cancel', 'ignore', 'hold')),
    total int not null,
    pending int not null,
    failed int not null default 0,
    created_at timestamptz not null,
    finished_at timestamptz
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
comment on table pipeline.workflow is 'Jobs that belong together; some wait for others.';
comment on column pipeline.workflow.pending is 'How many of its jobs have not ended.';
comment on column pipeline.workflow.failed is 'How many of its jobs have ended otherwise than finished.';
create index workflow_cancelling on pipeline.workflow (id) where state = 'cancelling';
create index workflow_finished on pipeline.workflow (finished_at) where finished_at is not null;

create table pipeline.workflow_job (
    id bigint primary key,
    workflow bigint not null,
    name text not null,
    task text not null,
    dependents int not null default 0,
    state text check (state in ('finished', 'failed', 'cancelled', 'expired')),
    finished_at timestamptz,
    result jsonb
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
comment on table pipeline.workflow_job is 'The jobs of workflows, by their names there; state is null until one has ended.';
comment on column pipeline.workflow_job.result is 'Kept only where other jobs need it.';
create index workflow_job_workflow on pipeline.workflow_job (workflow, id);

create table pipeline.job_need (
    needed bigint not null,
    job bigint not null,
    policy text not null check (policy in ('cancel', 'ignore', 'hold')),
    met bool not null default false,
    primary key (needed, job)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
comment on table pipeline.job_need is 'Which job needs which; policy: what becomes of it when the needed one does not finish.';
comment on column pipeline.job_need.met is 'The job waits for this one no longer.';
create index job_need_job on pipeline.job_need (job);

create table pipeline.job_ended (
    n bigint generated always as identity primary key,
    job bigint not null,
    workflow bigint not null,
    state text not null,
    finished_at timestamptz not null,
    done_to bigint not null default 0,
    result jsonb
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
comment on table pipeline.job_ended is 'Notes that a job of a workflow has ended, until those that need it have been told.';
comment on column pipeline.job_ended.done_to is 'Its dependents up to this id have been told.';
create index job_ended_job on pipeline.job_ended (job);
