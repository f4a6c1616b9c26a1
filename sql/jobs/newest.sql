-- newest: the highest id that a job has had, 0 before the first
-- locks: none
select coalesce(pg_sequence_last_value(pg_get_serial_sequence('pipeline.job', 'id')::regclass), 0)
