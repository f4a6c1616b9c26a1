-- turn: when the plan of a query was asked for last, and what came of it
-- $1 text: the fingerprint
-- locks: none
select extract(epoch from at)::float8 as at, outcome, reason from pipeline.plan_turn where fingerprint = $1
