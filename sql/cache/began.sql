-- began: when this transaction began, as `began` of own_changes tells it
-- locks: none
select extract(epoch from transaction_timestamp())::text
