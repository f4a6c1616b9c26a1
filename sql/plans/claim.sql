-- claim: whether this process may look for the plan of a query now
-- $1 text: the fingerprint
-- locks: the row of the query's turn
select pipeline.claim_plan($1)
