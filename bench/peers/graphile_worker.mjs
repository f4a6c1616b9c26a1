// graphile-worker in its fastest form: local queue, completion in batches. Usage: node graphile_worker.mjs DSN JOBS
// Prints {"rate": ...}: jobs a second from the first task's first line until no job is left in the table.
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.join(process.cwd(), "package.json"));
const { Logger, makeWorkerUtils, run } = require("graphile-worker");
const { Client } = require("pg");

const [connectionString, count] = process.argv.slice(2);
const jobs = Number(count);
const logger = new Logger(() => () => {});
process.stdin.on("end", () => process.exit(1)).resume();

const utils = await makeWorkerUtils({ connectionString, logger });
await utils.migrate();
await utils.release();

const watch = new Client({ connectionString });
await watch.connect();
for (let first = 0; first < jobs; first += 10_000) {
  const size = Math.min(10_000, jobs - first);
  await watch.query(
    `select count(*) from graphile_worker.add_jobs(array(
       select ('noop', json_build_object('n', n), null, null, null, null, null, null)::graphile_worker.job_spec
       from generate_series(1, $1::int) n))`,
    [size],
  );
}
await watch.query("vacuum (analyze)");
await watch.query("checkpoint");

let ended = 0;
let began = 0;
let allRan;
const ran = new Promise((resolve) => (allRan = resolve));
const concurrentJobs = 24;
const runner = await run({
  noHandleSignals: true,
  taskList: {
    noop: async () => {
      began ||= performance.now();
      if (++ended === jobs) allRan();
    },
  },
  preset: {
    worker: {
      connectionString,
      logger,
      concurrentJobs,
      maxPoolSize: 10,
      localQueue: { size: 500, refetchDelay: { durationMs: 10 } },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
    },
  },
});
await ran;
for (;;) {
  const { rows } = await watch.query("select exists (select from graphile_worker.jobs) as some");
  if (!rows[0].some) break;
  await new Promise((resolve) => setTimeout(resolve, 5));
}
const seconds = (performance.now() - began) / 1000;
console.log(JSON.stringify({ rate: jobs / seconds }));
await runner.stop();
await watch.end();
process.exit(0);
