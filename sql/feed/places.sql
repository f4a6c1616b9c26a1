-- places: how far each consumer has come
-- locks: none
select name, lineage, seq from pipeline.consumer
