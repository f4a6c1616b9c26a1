-- What reads statement counts has a new name for its second argument, like all others that read timings.
drop function if exists pipeline.statements(interval, int);
