"use strict";

/**
 * Measures the binding beside the clients that users would pick, in turns, so that all have the same machine:
 *
 *     IOK_REDIS=redis://127.0.0.1:6379 node bench/bench.js
 *
 * One JSON line for each case and side: `{"case": ..., "side": ..., "per_second": N}`, the median of its rounds, with
 * `cpu_ns` of the program's main thread for each message, and `p50_us` where one request at a time is measured. SECONDS
 * and ROUNDS change how long it takes.
 */

const fs = require("node:fs");
const { Kernel } = require("..");
const { Address } = require("../lib/outbox");
const { OP_ECHO } = require("../lib/records");

const URL = process.env.IOK_REDIS;
const SECONDS = Number(process.env.SECONDS ?? 0.5);
const ROUNDS = Number(process.env.ROUNDS ?? 7);
const KEY = "bench:key";
const DEPTH = 100;
const OUTSTANDING = 256;

/** CPU time of the main thread, in nanoseconds; the I/O thread's is not in it. */
const cpu = () => Number(fs.readFileSync(`/proc/self/task/${process.pid}/schedstat`, "utf8").split(" ")[0]);

/** Has `tasks` tasks ask again and again for a while. */
async function many(ask, tasks) {
  const over = performance.now() + SECONDS * 1000;
  let count = 0;
  const task = async () => {
    while (performance.now() < over) {
      for (let at = 0; at < 10; at++) await ask();
      count += 10;
    }
  };
  const [started, before] = [performance.now(), cpu()];
  await Promise.all(Array.from({ length: tasks }, task));
  const seconds = (performance.now() - started) / 1000;
  return { per_second: Math.round(count / seconds), cpu_ns: Math.round((cpu() - before) / count) };
}

/** Asks one at a time for a while. */
async function alone(ask) {
  const over = performance.now() + SECONDS * 1000;
  const times = [];
  const before = cpu();
  for (let now = performance.now(); now < over; ) {
    await ask();
    const after = performance.now();
    times.push(after - now);
    now = after;
  }
  const used = Math.round((cpu() - before) / times.length);
  times.sort((a, b) => a - b);
  const p50 = times[times.length >> 1];
  return { per_second: Math.round(1000 / p50), cpu_ns: used, p50_us: Math.round(p50 * 10_000) / 10 };
}

const middle = (rounds) => rounds.sort((a, b) => a.per_second - b.per_second)[rounds.length >> 1];

async function report(name, sides) {
  const measured = new Map(Object.keys(sides).map((side) => [side, []]));
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [side, run] of Object.entries(sides)) {
      const result = await run();
      if (round > 0) measured.get(side).push(result); // The first one warms up.
    }
  }
  for (const [side, rounds] of measured) console.log(JSON.stringify({ case: name, side, ...middle(rounds) }));
}

/** What a message costs the program's thread, without network: so many no-ops outstanding. */
function echo(kernel) {
  const { channel } = kernel;
  const to = new Address(0);
  const ask = () => channel.request(0, to, ["GET", KEY], undefined, OP_ECHO);
  return many(ask, OUTSTANDING);
}

/** The peers that are installed: their name, how to ask them, how to end them. */
async function peers() {
  const found = [];
  try {
    const Redis = require("ioredis");
    const client = new Redis(URL, { enableAutoPipelining: true });
    const end = () => client.disconnect();
    found.push(["ioredis", () => client.get(KEY), end], ["ioredis, buffers", () => client.getBuffer(KEY), () => {}]);
  } catch (error) {
    process.stderr.write(`no ioredis: ${error.message}\n`);
  }
  try {
    const client = require("redis").createClient({ url: URL });
    await client.connect();
    found.push(["node-redis", () => client.get(KEY), () => client.destroy()]);
  } catch (error) {
    process.stderr.write(`no node-redis: ${error.message}\n`);
  }
  return found;
}

async function main() {
  const kernel = new Kernel();
  const redis = kernel.open(URL);
  await redis.call("SET", KEY, "x".repeat(100));
  const others = await peers();
  const each = (measure) => Object.fromEntries(others.map(([name, ask]) => [name, () => measure(ask)]));
  const get = () => redis.call("GET", KEY);

  await report(`no-op, ${OUTSTANDING} outstanding`, { iokernel: () => echo(kernel) });
  await report(`GET, ${DEPTH} in flight`, {
    iokernel: () => many(get, DEPTH),
    "iokernel, as text": () => many(async () => (await get()).toString(), DEPTH),
    ...each((ask) => many(ask, DEPTH)),
  });
  await report("GET, one at a time", {
    iokernel: () => alone(get),
    "iokernel, callSync": () => alone(() => redis.callSync("GET", KEY)),
    ...each(alone),
  });

  await redis.call("DEL", KEY);
  for (const [, , end] of others) end();
  await kernel.close();
}

main();
