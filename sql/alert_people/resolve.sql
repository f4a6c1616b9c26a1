-- resolve: ends alerts by hand; returns how many
-- $1 text: the rule
-- $2 text: the instance, or null for all
-- $3 text: a note
-- $4 text: who
-- locks: advisory (1885697639, 30) and the rule's row of alert_progress, as whoever judges
select pipeline.alert_resolve($1, $2, $3, $4)
