-- beat: tells every follower that the feed lives and where it stands, if this term still leads
-- $1 bigint: the term
-- $2 text: the payload, a batch without events
-- locks: the row of pipeline.leader in share mode
select pipeline.assert_leader($1), pg_notify('pipeline_feed', $2)
