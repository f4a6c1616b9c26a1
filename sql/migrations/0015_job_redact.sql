-- Which arguments of a task nobody is shown, so that whoever lists jobs knows without its code.

alter table pipeline.task add column redact text[] not null default '{}';
comment on column pipeline.task.redact is 'Paths to arguments that are never shown: password, card.number, or * for all.';
