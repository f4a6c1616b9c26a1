-- notify: sends NOTIFY on a channel of the user's
-- $1 text: the channel
-- $2 text: the payload
-- locks: none
select pg_notify($1, $2)
