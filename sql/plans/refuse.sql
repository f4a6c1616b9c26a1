-- refuse: writes down why no plan could be had
-- $1 text: the fingerprint
-- $2 text: 'refused' or 'failed'
-- $3 text: the reason
-- locks: the row of the query's turn
select pipeline.refuse_plan($1, $2, $3)
