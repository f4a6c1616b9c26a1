-- the tables of the freshness check: each row has a version that only grows (bench/freshness_log.py)
-- item: its first 40 rows are 20 pairs, each written by one transaction at a time; the next 8 are written by
-- transactions that stay open for seconds. shelf: six pairs, truncated and refilled. flood: only noise.
create table item (id int primary key, version bigint not null);
create table shelf (id int primary key, version bigint not null);
create table flood (id int primary key, n bigint not null);
insert into item select g, 1 << 24 from generate_series(0, 359) g;
insert into shelf select g, 1 << 24 from generate_series(0, 11) g;
insert into flood select g, 0 from generate_series(0, 4999) g;
select pipeline.watch('public.item', keys => '{id}');
select pipeline.watch('public.shelf', keys => '{id}');
select pipeline.watch('public.flood', keys => '{id}');
