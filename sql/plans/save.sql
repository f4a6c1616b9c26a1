-- save: writes down a plan; the summary of the plan before, where it was another one
-- $1 text: the fingerprint
-- $2 text: the shape
-- $3 text: the summary
-- $4 text: 'generic' or 'analyzed'
-- $5 json: the plan
-- $6 jsonb: settings
-- $7 float8: milliseconds that the query took
-- locks: the rows of the query
select pipeline.save_plan($1, $2, $3, $4, $5, $6, $7)
