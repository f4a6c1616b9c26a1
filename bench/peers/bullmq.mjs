// BullMQ, which keeps its jobs in Redis. Usage: node bullmq.mjs PORT JOBS
// Prints {"rate": ...}: jobs a second from the first task's first line until the last one is completed in Redis.
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.join(process.cwd(), "package.json"));
const { Queue, Worker } = require("bullmq");

const [port, count] = process.argv.slice(2);
const jobs = Number(count);
const connection = { host: "127.0.0.1", port: Number(port), maxRetriesPerRequest: null };
process.stdin.on("end", () => process.exit(1)).resume();

const queue = new Queue("noop", { connection });
await queue.obliterate({ force: true });
for (let first = 0; first < jobs; first += 1_000) {
  const size = Math.min(1_000, jobs - first);
  await queue.addBulk(
    Array.from({ length: size }, (_, n) => ({ name: "noop", data: { n }, opts: { removeOnComplete: true } })),
  );
}

let ended = 0;
let began = 0;
let allEnded;
const over = new Promise((resolve) => (allEnded = resolve));
const worker = new Worker(
  "noop",
  async () => {
    began ||= performance.now();
  },
  { connection, concurrency: 100 },
);
worker.on("completed", () => {
  if (++ended === jobs) allEnded();
});
await over;
const seconds = (performance.now() - began) / 1000;
console.log(JSON.stringify({ rate: jobs / seconds }));
process.exit(0);
