-- spend: notes how many tokens a channel has left
-- $1 text: the channel
-- $2 float8: tokens
-- locks: the row, which lock holds
update pipeline.alert_channel set tokens = $2, refilled_at = pipeline.now() where name = $1
