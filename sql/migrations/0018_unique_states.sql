-- A unique job names the states in which another one keeps it away, in place of "until it begins" or "until it ends".
alter table pipeline.task add column unique_states text[];
update pipeline.task set unique_states = '{blocked,delayed,ready}' where unique_until = 'start';
alter table pipeline.task drop column unique_until;
comment on column pipeline.task.unique_states is 'In which states another job like it keeps a new one away; null means all of them.';

-- Whoever adds a job says what counts; what the other one was added with was never read.
alter table pipeline.job_unique drop column until;

-- Their parameters have changed.
drop function if exists pipeline.enqueue, pipeline.enqueue_with, pipeline.enqueue_unique;
