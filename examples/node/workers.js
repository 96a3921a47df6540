/**
 * Worker threads that share one connection, and a subscription that hears of them.
 *
 * $ node workers.js redis://127.0.0.1:6379
 * worker 0 is done
 * worker 1 is done
 * worker 2 is done
 * 3000 jobs
 */

const { Worker, isMainThread, workerData } = require("node:worker_threads");
const { attach, open } = require("iokernel");

async function main() {
  const redis = open(process.argv[2] ?? "redis://127.0.0.1:6379");
  await redis.call("DEL", "jobs:done");
  const news = await redis.subscribe("SUBSCRIBE", "jobs:news");
  for (const number of [0, 1, 2]) new Worker(__filename, { workerData: { shared: redis.share(), number } });

  const heard = [];
  for await (const [, , text] of news) if (heard.push(String(text)) === 3) break;
  console.log(heard.sort().join("\n"));
  console.log(`${await redis.call("GET", "jobs:done")} jobs`);
  await redis.call("DEL", "jobs:done");
}

async function work({ shared, number }) {
  // The same endpoint and its connection, by a channel of this thread's own.
  const redis = attach(shared);
  await Promise.all(Array.from({ length: 1000 }, () => redis.call("INCR", "jobs:done")));
  await redis.call("PUBLISH", "jobs:news", `worker ${number} is done`);
}

if (isMainThread) main();
else work(workerData);
