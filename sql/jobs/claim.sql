-- claim: hands out jobs of a queue, each lane's as one lease; see the function
-- $1 text: queue   $2 bigint: how many could begin at once   $3 bigint: how many at most   $4 bigint: worker
-- $5 text: the key whose turn was last
-- locks: the lanes it takes from, SKIP LOCKED; where a limit holds also the queue's row and the keys' limiters
select c.* from pipeline.claim($1, $2, $3, $4, $5) c
