-- Percentiles are read in another way: a span no longer means one level alone, and labels can be asked for.
drop function if exists pipeline.percentile(text, double precision, interval);
drop function if exists pipeline.latency_summary(text, bool, timestamptz, timestamptz, int, double precision[]);
drop function if exists pipeline.latency_level(interval);
