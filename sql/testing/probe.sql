-- probe: fails where the session's transaction was aborted by an error, and does nothing else
-- locks: none
select '{}'::jsonb as args
