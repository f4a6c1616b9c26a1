-- What a running job leaves beside its outcome: how far it is, what its next attempt can go on from, and its own log.
--
-- Apart from the job's row, which a claim and everybody behind it would otherwise have to step over in many versions.
-- Nothing here is touched when a job ends: what is left over is pruned by age.

create table pipeline.job_state (
    job bigint primary key,
    done double precision,
    total double precision,
    note text,
    saved jsonb,
    at timestamptz not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
comment on table pipeline.job_state is 'Progress of a job and what it has saved, kept over its attempts.';

create table pipeline.job_log (
    job bigint not null,
    attempt int not null,
    at timestamptz not null,
    level text not null check (level in ('debug', 'info', 'warning', 'error')),
    message text not null
) partition by range (at);
comment on table pipeline.job_log is 'What jobs have logged, one partition a day (UTC); see pipeline.maintain_archive().';
create table pipeline.job_log_default partition of pipeline.job_log default;
create index job_log_job on pipeline.job_log (job, at);

alter table pipeline.job_archive add column expires_at timestamptz, add column timeout interval;
