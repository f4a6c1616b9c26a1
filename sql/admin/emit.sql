-- emit: sends an event of one's own on the feed
-- $1 text: the channel
-- $2 text: the payload, or null
-- locks: none
select pipeline.emit($1, $2)
