-- watch: puts triggers on a table, so that its changes are reported; returns the table's tag
-- $1 text: the table, as one would write it in a query
-- $2 text[]: key columns, or null for the primary key
-- $3 text[]: columns whose change counts, or null for all
-- $4 boolean: also measure the statements
-- $5 boolean: keep the events through a crash
-- locks: what CREATE TRIGGER takes (SHARE ROW EXCLUSIVE on the table), in short tries
select pipeline.watch($1, keys => $2, columns => $3, timing => $4, durable => $5)
