-- set_ahead: lets the clock of this session stand still, so many seconds ahead of the server's
-- $1 float8: seconds, or null to let it run again
-- locks: none
select set_config('pipeline.fake_now', coalesce((statement_timestamp() + make_interval(secs => $1::float8))::text, ''), false)
