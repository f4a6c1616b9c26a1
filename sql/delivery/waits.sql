-- waits: a notification, as long as it is to be sent
-- $1 text: the notification
-- locks: none
select id::text from pipeline.alert_notification where id = $1::text::uuid and state <> 'told'
