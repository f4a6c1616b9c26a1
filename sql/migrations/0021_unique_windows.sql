-- A task that was declared unique "until it begins" and for a time now names states that have ended, too: else that time would
-- mean nothing, and whoever adds such a job from SQL would be refused until a worker declares the task again.
update pipeline.task set unique_states = unique_states || '{finished,failed,cancelled,expired}'
where unique_for is not null and not unique_states && '{finished,failed,cancelled,expired}';
