-- remember: writes down what stands for fingerprints
-- $1 text[]: fingerprints
-- $2 int: the version of the rules that made them
-- $3 text[]: their kinds
-- $4 text[]: their texts
-- locks: the rows, in the order of fingerprints
select pipeline.remember_queries($1, $2, $3, $4)
