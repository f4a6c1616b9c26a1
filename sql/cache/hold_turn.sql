-- hold_turn: keeps the outbox from being turned until the transaction ends; takes no snapshot
-- locks: ACCESS SHARE on pipeline.ring_0 and ring_1, which only a turn conflicts with
lock table pipeline.ring in access share mode
