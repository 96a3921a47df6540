"use strict";

/** A cluster whose workers listen on one address, each on a socket of its own, and ask Redis. */

const cluster = require("node:cluster");
const { Kernel, open } = require("../..");

const [redisUrl, count] = [process.argv[2], 3];

async function primary() {
  const kernel = new Kernel();
  const first = kernel.listen("http://127.0.0.1:0", { reusePort: true });
  const { url } = first;
  const workers = Array.from({ length: count }, () => cluster.fork({ LISTEN_URL: url }));
  await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once("message", resolve))));
  await first.close();
  const seen = new Set();
  for (let asked = 0; asked < 300 && seen.size < count; asked++) {
    const api = kernel.open(url);
    const [, , body] = await api.with({ timeout: 5 }).call("GET", "/");
    seen.add(String(body));
    await api.close();
  }
  console.log(`${seen.size} workers, ${[...seen].every((pid) => Number(pid) !== process.pid)}`);
  for (const worker of workers) worker.kill();
  await kernel.close();
}

async function worker() {
  const { listen } = require("../..");
  const redis = open(redisUrl);
  listen(process.env.LISTEN_URL, { reusePort: true }).serve(async () => [
    200,
    {},
    await redis.call("ECHO", process.pid),
  ]);
  process.send("up");
}

if (cluster.isPrimary) primary();
else worker();
