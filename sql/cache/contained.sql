-- contained: what statements that begin after this one see at the least, as JSON; works on a standby
-- locks: none
select pipeline.contained()
