-- When somebody last woke the evaluator of alerts, in milliseconds since the epoch; a sequence, because nobody waits for it.
create sequence pipeline.alert_bell;
