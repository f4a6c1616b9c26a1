-- delivered: notes that a sink has accepted a notice
-- $1 text: the notice
-- $2 text: the sink
-- locks: the row
update pipeline.alert_delivery
set delivered_at = pipeline.now(), problem = null
where notice = $1::text::uuid and sink = $2 and delivered_at is null
