/* From a status to the page: tiles and tables. Owns what is said of each figure; knows no connection. */

import { Table, figure, h, mood, put } from "./dom.js";
import { ago, bytes, duration, measure, milliseconds, moment, nines, number, percent } from "./format.js";
import { Spark } from "./spark.js";

const byId = (id) => document.getElementById(id);

/** What to do next where there is nothing to see. */
const HINTS = {
  alerts: "Nothing is pending or firing.",
  noAlerts: "No alerts are judged in this process.",
  noSeries: "No timings yet. Try: `pgreflex watch public.orders --timing`, or `pipeline.instrument(pool)`",
  noQueues: "No queue holds a job. Try: `pgreflex enqueue shop.tasks.hello`",
  noJobs: "The job queue does not run in this process.",
  noCached: "Nothing has been read through a cache yet.",
  noPools: "No process reports a connection pool.",
  noCache: "No process reports a cache.",
  noWatches: "No table is watched. Try: `pgreflex watch public.orders --keys id`",
  noFeed: "The feed does not run in this process.",
  noServices: "No service runs in this process.",
};

const ALERT = {
  firing: { shape: "▲", mood: "bad", rank: 0 },
  pending: { shape: "◆", mood: "warn", rank: 1 },
  resolved: { shape: "✓", mood: "good", rank: 3 },
};

class Tile {
  constructor(id, title, spark, values) {
    this.figures = values.map((label) => ({ value: h("dd", {}), label: h("dt", {}, label) }));
    this.note = h("p", { class: "note" });
    this.spark = spark;
    byId(id).append(
      h("h2", {}, title),
      h("dl", { class: values.length > 1 ? "figures many" : "figures" },
        ...this.figures.map(({ value, label }) => h("div", {}, label, value))),
      ...(spark ? [spark.element] : []), this.note);
  }

  show(texts, note, noteMood = "") {
    texts.forEach((text, index) => figure(this.figures[index].value, text));
    put(this.note, note, note);
    mood(this.note, "note", noteMood);
  }
}

export class View {
  constructor() {
    this.sparks = {
      events: new Spark("Events per second", number),
      delivery: new Spark("p99 from write to delivery", milliseconds),
      cache: new Spark("Cache hit ratio", percent, { ceiling: 1 }),
      jobs: new Spark("Jobs per second", number),
      alerts: new Spark("Firing alerts", number),
    };
    this.tiles = {
      events: new Tile("tile-events", "Events", this.sparks.events, ["per s", "since start"]),
      delivery: new Tile("tile-delivery", "Write to delivery", this.sparks.delivery, ["p50", "p95", "p99"]),
      cache: new Tile("tile-cache", "Cache", this.sparks.cache, ["hit ratio", "age bound", "fresh in 1 s"]),
      jobs: new Tile("tile-jobs", "Jobs", this.sparks.jobs, ["per s", "ready", "running"]),
      alerts: new Tile("tile-alerts", "Alerts", this.sparks.alerts, ["firing", "pending"]),
    };
    this.tables = tables(() => this.now());
    for (const [name, table] of Object.entries(this.tables)) byId("panel-" + name).append(table.element);
    this.status = null;
    this.frozen = false; // not live: what was true then is not said to go on
    this.heardAt = 0;
    setInterval(() => this.tick(), 1000);
  }

  /** The server's time as well as it is known: relative times must not depend on the reader's clock. */
  now() {
    return this.status.at + (performance.now() - this.heardAt) / 1000;
  }

  show(status) {
    this.status = status;
    this.frozen = false;
    this.heardAt = performance.now();
    byId("main").hidden = false;
    byId("facts").hidden = false;
    this.facts();
    this.points();
    this.figures();
    this.lists();
  }

  /** What moves without a new status: relative times. */
  tick() {
    if (!this.status || this.frozen) return;
    this.facts();
    this.lists();
  }

  facts() {
    const { status } = this;
    put(byId("fact-process"), status.process);
    put(byId("fact-version"), status.version);
    put(byId("fact-database"), status.database);
    put(byId("fact-up"), duration(this.now() - status.started_at), "since " + moment(status.started_at));
    put(byId("fact-memory"), bytes(status.resident_bytes));
  }

  points() {
    const { feed, cache, jobs } = this.status;
    const at = this.heardAt / 1000;
    this.sparks.events.add(at, feed?.events_per_second);
    this.sparks.delivery.add(at, feed?.write_to_delivery.p99);
    this.sparks.cache.add(at, cache?.hit_ratio);
    this.sparks.jobs.add(at, jobs?.per_second);
    this.sparks.alerts.add(at, tally(this.status, "firing"));
  }

  figures() {
    const { feed, cache, jobs, alerts } = this.status;
    const delivery = feed?.write_to_delivery;
    const total = (name) => (jobs ? jobs.queues.reduce((sum, queue) => sum + queue[name], 0) : null);
    this.tiles.events.show([number(feed?.events_per_second), number(feed?.events_total)], ...feedNote(feed));
    this.tiles.delivery.show([delivery?.p50, delivery?.p95, delivery?.p99].map(milliseconds), windowNote(delivery, "event"));
    this.tiles.cache.show(
      [percent(cache?.hit_ratio), cache?.age_bound_seconds == null ? null : "≤ " + duration(cache.age_bound_seconds),
        nines(cache?.fresh_within_1s, cache?.checks_total)],
      ...cacheNote(cache));
    mood(byId("tile-cache"), "tile", cache?.violations_total ? "wrong" : "");
    this.tiles.jobs.show([number(jobs?.per_second), number(total("ready")), number(total("running"))],
      jobsNote(jobs));
    const firing = tally(this.status, "firing");
    const worst = byRank(alerts)[0];
    this.tiles.alerts.show([number(firing), number(tally(this.status, "pending"))],
      worst ? worst.rule : alerts ? "nothing to report" : "no alerts in this process", firing ? "bad" : "");
    mood(byId("tile-alerts"), "tile", firing ? "alarm" : "");
  }

  lists() {
    const { feed, cache, jobs, alerts, series, queries, services, pools } = this.status;
    this.tables.alerts.show(byRank(alerts), (alert, index) => alert.rule + "\n" + alert.message + "\n" + index,
      alerts ? HINTS.alerts : HINTS.noAlerts);
    const alerting = alertingNote(this.status.alerting);
    byId("alert-facts").hidden = !alerting;
    if (alerting) put(byId("alert-facts"), alerting);
    byId("panel-queries").hidden = !queries?.length;
    if (queries?.length) put(byId("query-facts"), queryFacts(queries));
    this.tables.queries.show(queries ?? [], (query) => query.fingerprint);
    // queries have a table of their own, with their texts
    this.tables.series.show((series ?? []).filter((one) => one.source !== "query" || !one.name.includes("fingerprint=")), (one) => one.name);
    this.tables.queues.show(jobs?.queues ?? [], (queue) => queue.queue, jobs ? HINTS.noQueues : HINTS.noJobs);
    this.tables.cache.show(cache?.namespaces ?? [], (space) => space.name, cache ? HINTS.noCached : HINTS.noCache);
    const facts = byId("cache-facts");
    facts.hidden = !cache;
    if (cache) put(facts, cacheFacts(cache));
    this.tables.pools.show(pools ?? [], (pool) => pool.name + "\n" + pool.process);
    const watches = [...(feed?.watches ?? [])].sort((a, b) => (b.problem !== null) - (a.problem !== null));
    this.tables.watches.show(watches, (watch) => watch.table, feed ? HINTS.noWatches : HINTS.noFeed);
    this.tables.services.show(services, (service) => service.name);
  }
}

function count(alerts, state) {
  return alerts ? alerts.filter((alert) => alert.state === state).length : null;
}

function alertName(alert) {
  const instance = alert.instance && !alert.message.includes(alert.instance) ? alert.instance + ": " : "";
  const marks = [alert.acknowledged && `acknowledged by ${alert.acknowledged}`, alert.held && `not told: ${alert.held}`];
  return { text: alert.rule, below: instance + alert.message, mark: marks.filter(Boolean).join(", "), link: alert.runbook, linkText: "runbook" };
}

/** A value in the unit of its metric. */
function inUnit(value, unit) {
  if (value === null || value === undefined) return null;
  if (unit === "ms") return milliseconds(value);
  if (unit === "s") return duration(value);
  if (unit === "0 to 1") return percent(value);
  return unit === "bytes" ? bytes(value) : measure(value);
}

/** Which channels do not accept, and how many rules cannot be judged. */
function alertingNote(alerting) {
  const stuck = (alerting?.channels ?? []).filter((one) => one.waiting || one.failed);
  const told = stuck.map((one) => `${one.channel}: ${number(one.waiting)} not accepted, ${number(one.failed)} given up` +
    (one.problem ? ` (${one.problem})` : ""));
  const broken = alerting?.rule_problems ?? 0;
  return [...(broken ? [`${number(broken)} rule${broken === 1 ? "" : "s"} cannot be judged`] : []), ...told].join("; ");
}

/** How many are in a state; the list holds 500 at most. */
export function tally({ alerting, alerts }, state) {
  if (!alerting) return count(alerts, state);
  return alerting.counts.filter((one) => one.state === state).reduce((sum, one) => sum + one.count, 0);
}

function byRank(alerts) {
  const rank = (alert) => ALERT[alert.state]?.rank ?? 2;
  return [...(alerts ?? [])].sort((a, b) => rank(a) - rank(b) || b.since - a.since);
}

function feedNote(feed) {
  if (!feed) return ["no feed in this process", ""];
  if (!feed.connected) return ["the feed is not connected", "bad"];
  if (feed.outbox_full) return ["the outbox is full: events are not kept", "bad"];
  const role = feed.leading ? "leading" : "following";
  const sleep = feed.asleep === null ? "" : feed.asleep ? ", asleep" : ", awake";
  return [role + sleep, ""];
}

/** checkout{region="eu"}: the name, and its labels below. */
function seriesName(name) {
  const brace = name.indexOf("{");
  return brace > 0 && name.endsWith("}") ? { text: name.slice(0, brace), below: name.slice(brace + 1, -1).replaceAll(",", ", ") } : { text: name };
}

/** The text, shortened to what three lines hold; the rest is its title. */
function queryText(query) {
  if (query.text === null) return query.fingerprint === "other" ? "all queries beyond the bound on series" : "the text is not known";
  return query.text.replace(/\s+/g, " ");
}

function queryFacts(queries) {
  const over = queries[0].latency.window_seconds;
  const share = queries.reduce((sum, query) => sum + (query.share ?? 0), 0);
  return `the last ${duration(over)}; ${percent(share)} of the time of all queries`;
}

function windowNote(quantiles, what) {
  if (!quantiles) return "no feed in this process";
  if (!quantiles.count) return "no events in the window";
  const over = quantiles.window_seconds === null ? "" : " in " + duration(quantiles.window_seconds);
  return `${number(quantiles.count)} ${what}${quantiles.count === 1 ? "" : "s"}${over}`;
}

function jobsNote(jobs) {
  if (!jobs) return "no job queue in this process";
  const known = [["run", jobs.run.p95], ["wait", jobs.wait.p95]].filter(([, value]) => value !== null);
  return known.map(([what, value]) => `${what} p95 ${milliseconds(value)}`).join(", ") || "no job has run lately";
}

function cacheNote(cache) {
  if (!cache) return ["no cache in this process", ""];
  if (cache.violations_total) return [`${number(cache.violations_total)} of ${number(cache.checks_total)} checked hits were wrong`, "bad"];
  const held = `${number(cache.entries)} entries, ${bytes(cache.bytes)} of ${bytes(cache.max_bytes)}`;
  if (cache.age_bound_seconds === null) return ["freshness unproved, bypassed", "warn"];
  return [held, ""];
}

/** What the cache did on the whole: checks, ends and refusals. */
function cacheFacts(cache) {
  if (!cache) return "";
  const checks = cache.checks_total + cache.uncheckable_total
    ? [`${number(cache.checks_total)} hits checked, ${number(cache.violations_total)} wrong` +
      (cache.uncheckable_total ? `, ${number(cache.uncheckable_total)} uncheckable` : "")] : ["no hit was checked yet"];
  return [...checks, ...causes("ended", cache.gone), ...causes("not stored", cache.refused)].join("; ");
}

function causes(what, counts) {
  const known = Object.entries(counts).filter(([, value]) => value).sort(([, a], [, b]) => b - a);
  return known.length ? [`${what}: ` + known.map(([cause, value]) => `${number(value)} ${cause}`).join(", ")] : [];
}

function namespaceBelow(space) {
  const known = [["stale", space.stale_total], ["bypassed", space.bypassed_total], ["not stored", space.refused_total]];
  return known.filter(([, value]) => value).map(([what, value]) => `${number(value)} ${what}`).join(", ") || null;
}

function poolBelow(pool) {
  const known = [["in vain", pool.timeouts_total], ["leaked", pool.leaked_total + pool.reclaimed_total],
    ["left in a transaction", pool.rolled_back_total], ["broken", pool.discarded_total]];
  return known.filter(([, value]) => value).map(([what, value]) => `${number(value)} ${what}`).join(", ") || null;
}

function hitRatio(space) {
  const reads = space.hits_total + space.misses_total + space.stale_total + space.bypassed_total;
  return reads ? percent(space.hits_total / reads) : null;
}

function queueState(queue) {
  if (queue.paused) return { text: "paused", shape: "‖", mood: "warn" };
  if (queue.draining) return { text: "draining", shape: "▽", mood: "warn" };
  return { text: "open", shape: "●", mood: "good" };
}

function tables(now) {
  return {
    alerts: new Table("Alerts that are not inactive", [
      { title: "State", width: 6.6, cell: (a) => ({ text: a.state, shape: ALERT[a.state]?.shape ?? "■", mood: ALERT[a.state]?.mood, below: a.severity }) },
      { title: "Rule", head: true, cell: alertName },
      { title: "Since", width: 8.3, numeric: true, cell: (a) => ({ text: ago(now() - a.since), title: moment(a.since) }) },
      { title: "Value", width: 6.6, numeric: true, cell: (a) => inUnit(a.value, a.unit) },
      { title: "Threshold", width: 5.6, numeric: true, cell: (a) => inUnit(a.threshold, a.unit) },
    ], HINTS.alerts),
    series: new Table("Durations by series", [
      { title: "Series", head: true, cell: (s) => ({ ...seriesName(s.name), title: windowNote(s.latency, "sample") }) },
      { title: "Count", width: 4.9, numeric: true, cell: (s) => number(s.latency.count) },
      { title: "p50", width: 5, numeric: true, cell: (s) => milliseconds(s.latency.p50) },
      { title: "p95", width: 5, numeric: true, cell: (s) => milliseconds(s.latency.p95) },
      { title: "p99", width: 5, numeric: true, cell: (s) => milliseconds(s.latency.p99) },
      { title: "Max", width: 5, numeric: true, cell: (s) => milliseconds(s.max_ms) },
      { title: "Errors", width: 3.6, numeric: true, cell: (s) => ({ text: number(s.errors), mood: s.errors ? "bad" : "quiet" }) },
    ], HINTS.noSeries),
    queries: new Table("Queries that took the most time", [
      { title: "Query", head: true, cell: (q) => ({ text: queryText(q), title: q.text ?? "", below: q.fingerprint }) },
      { title: "Calls", width: 4.9, numeric: true, cell: (q) => number(q.latency.count) },
      { title: "Total", width: 7.4, numeric: true, cell: (q) => milliseconds(q.total_ms) },
      { title: "Share", width: 4.4, numeric: true, hint: "of the time of all queries", cell: (q) => percent(q.share) },
      { title: "p50", width: 5, numeric: true, cell: (q) => milliseconds(q.latency.p50) },
      { title: "p95", width: 5, numeric: true, cell: (q) => milliseconds(q.latency.p95) },
      { title: "p99", width: 5, numeric: true, cell: (q) => milliseconds(q.latency.p99) },
      { title: "Max", width: 5, numeric: true, cell: (q) => milliseconds(q.max_ms) },
      { title: "Errors", width: 3.6, numeric: true, cell: (q) => ({ text: number(q.errors), mood: q.errors ? "bad" : "quiet" }) },
    ], ""),
    queues: new Table("Job queues", [
      { title: "Queue", head: true, cell: (q) => ({ text: q.queue, below: q.failed_24h ? `${number(q.failed_24h)} failed in 24 h` : null, belowMood: "bad" }) },
      { title: "State", width: 6.6, cell: queueState },
      { title: "Ready", width: 4.8, numeric: true, cell: (q) => number(q.ready) },
      { title: "Running", width: 4.8, numeric: true, cell: (q) => number(q.running) },
      { title: "Delayed", width: 4.8, numeric: true, cell: (q) => number(q.delayed) },
      { title: "Oldest ready", width: 7.4, numeric: true, hint: "how long the oldest job that may run has waited",
        cell: (q) => (q.ready === 0 ? { text: "none", mood: "quiet" } : duration(q.oldest_ready_seconds)) },
    ], HINTS.noQueues),
    pools: new Table("Connection pools", [
      { title: "Pool", head: true, cell: (p) => ({ text: p.name, below: poolBelow(p), belowMood: p.timeouts_total ? "bad" : "", title: p.process }) },
      { title: "In use", width: 5, numeric: true, cell: (p) => ({ text: `${number(p.active)} of ${number(p.max_size)}`, mood: p.active >= p.max_size ? "warn" : "" }) },
      { title: "Idle", width: 3.6, numeric: true, cell: (p) => number(p.idle) },
      { title: "Waiting", width: 4.8, numeric: true, cell: (p) => ({ text: number(p.waiting), mood: p.waiting ? "bad" : "quiet" }) },
      { title: "Wait p95", width: 5, numeric: true, hint: "from asking to having, last minute", cell: (p) => milliseconds(p.wait.p95) },
      { title: "Held p95", width: 5, numeric: true, hint: "from having to returning, last minute", cell: (p) => milliseconds(p.held.p95) },
    ], HINTS.noPools),
    cache: new Table("Cached functions and namespaces", [
      { title: "Namespace", head: true, cell: (c) => ({ text: c.name || "all others", below: namespaceBelow(c) }) },
      { title: "Hits", width: 5, numeric: true, cell: (c) => number(c.hits_total) },
      { title: "Ratio", width: 5, numeric: true, hint: "hits by reads, since the processes started", cell: hitRatio },
      { title: "Entries", width: 5, numeric: true, cell: (c) => number(c.entries) },
      { title: "Size", width: 5, numeric: true, cell: (c) => bytes(c.bytes) },
      { title: "Saved", width: 7.4, numeric: true, hint: "hits times the mean load", cell: (c) => duration(c.saved_seconds_total) },
    ], HINTS.noCached),
    watches: new Table("Watched tables", [
      { title: "Table", head: true, cell: (w) => ({ text: w.table, below: w.problem, belowMood: "bad" }) },
      { title: "State", width: 7.4, cell: (w) => (w.problem ? { text: "problem", shape: "▲", mood: "bad" } : { text: "ok", shape: "●", mood: "good" }) },
      { title: "Keys", width: 10, wrap: true, cell: (w) => w.keys.join(", ") || "whole table" },
      { title: "Timing", width: 4.6, cell: (w) => ({ text: w.timing ? "on" : "off", mood: w.timing ? "" : "quiet" }) },
    ], HINTS.noWatches),
    services: new Table("Services of this process", [
      { title: "Service", head: true, cell: (s) => ({ text: s.name, below: s.detail, belowMood: s.ok ? "" : "bad" }) },
      { title: "State", width: 6.6, cell: (s) => (s.ok ? { text: "ok", shape: "●", mood: "good" } : { text: "failed", shape: "✕", mood: "bad" }) },
      { title: "Restarts", width: 5.6, numeric: true, cell: (s) => ({ text: number(s.restarts), mood: s.restarts ? "" : "quiet" }) },
    ], HINTS.noServices),
  };
}
