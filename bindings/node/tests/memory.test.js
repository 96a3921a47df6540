"use strict";

/** Memory, descriptors and CPU time: what is over leaves nothing behind, and what is idle costs nothing. */

const assert = require("node:assert/strict");
const fs = require("node:fs");
const test = require("node:test");
const { setTimeout: sleep } = require("node:timers/promises");
const { Kernel } = require("..");
const { collect, range, run, until, withRedis } = require("./support/tools");

const one = withRedis();
const files = () => fs.readdirSync("/proc/self/fd").length;
const threads = () => fs.readdirSync("/proc/self/task").length;

/** Bytes that a load leaves in memory once it has run twice. */
async function left(load) {
  await load();
  await load();
  await collect();
  const before = process.memoryUsage();
  await load();
  await collect();
  const after = process.memoryUsage();
  return after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers;
}

test("a hundred thousand requests leave nothing", async () => {
  const load = async () => {
    for (const _ of range(100)) await Promise.all(range(1000).map((number) => one.redis.call("ECHO", `${number}`)));
  };
  assert.ok((await left(load)) < 1 << 20);
});

test("neither do errors, cancelled requests, time limits and batches", async () => {
  const load = async () => {
    for (const _ of range(20)) {
      const { signal } = new AbortController();
      await Promise.allSettled(range(100).map(() => one.redis.call("NOSUCH")));
      await Promise.allSettled(range(100).map(() => one.redis.with({ signal, timeout: 0.001 }).call("PING")));
      await Promise.allSettled(range(100).map((at) => {
        const controller = new AbortController();
        const asked = one.redis.with({ signal: controller.signal }).call("ECHO", `${at}`);
        controller.abort();
        return asked;
      }));
      await one.redis.call(...range(100).map((number) => ["ECHO", number]));
      one.redis.send("PING");
    }
  };
  assert.ok((await left(load)) < 1 << 20);
});

test("nor large values", async () => {
  const value = Buffer.alloc(3 << 20, "x");
  const load = async () => {
    for (const _ of range(10)) assert.equal((await one.redis.call("ECHO", value)).length, value.length);
  };
  assert.ok((await left(load)) < 1 << 20);
});

test("nor subscriptions and leases", async () => {
  const load = async () => {
    for (const number of range(50)) {
      const stream = await one.redis.subscribe("SUBSCRIBE", `n:leak:${number}`);
      await one.redis.call("PUBLISH", `n:leak:${number}`, "x");
      await stream.get(5);
      stream.close();
      await one.redis.lease((lease) => lease.call("PING"));
    }
  };
  assert.ok((await left(load)) < 1 << 20);
});

test("kernels that are closed leave no thread, no descriptor, and can be collected", async () => {
  const registry = new Set();
  const collected = new FinalizationRegistry((name) => registry.add(name));
  const round = async (name) => {
    const kernel = new Kernel();
    const redis = kernel.open(one.url);
    await redis.call("PING");
    kernel.listen("redis://127.0.0.1:0");
    await redis.subscribe("SUBSCRIBE", "n:closed");
    await kernel.close();
    collected.register(kernel, name);
  };
  await round("first");
  const before = { files: files(), threads: threads() };
  for (const number of range(20)) await round(number);
  assert.ok(files() <= before.files);
  assert.ok(threads() <= before.threads);
  await until(async () => {
    await collect();
    return registry.size >= 20;
  });
});

test("an idle program with everything open uses no CPU time", async () => {
  const stream = await one.redis.subscribe("SUBSCRIBE", "n:idle");
  const listener = one.kernel.listen("redis://127.0.0.1:0");
  const waiting = [stream.next(), listener.next(), one.redis.with({ timeout: 2 }).call("BLPOP", "n:idle", 0)];
  waiting[2].catch(() => {});
  await sleep(100);
  const before = process.cpuUsage();
  await sleep(1000);
  const { user, system } = process.cpuUsage(before);
  stream.close();
  await listener.close();
  await Promise.allSettled(waiting);
  assert.ok(user + system < 20_000, `${(user + system) / 1000} ms`);
});

test("a slow reader's memory is bounded", async () => {
  const { code, stdout, stderr } = await run(
    `const { Kernel } = require("./");
    const kernel = new Kernel({ channel: { pushBuffer: "1MiB" } });
    const redis = kernel.open(process.argv[1]);
    const writer = new Kernel().open(process.argv[1]);
    const message = Buffer.alloc(10_000, "x");
    redis.subscribe("SUBSCRIBE", "n:bounded").then((stream) => {
      writer.callSync("PING");
      const before = process.memoryUsage.rss();
      for (let n = 0; n < 20_000; n++) writer.callSync("PUBLISH", "n:bounded", message);
      console.log((process.memoryUsage.rss() - before) >> 20);
      stream.close();
    });`,
    { args: [one.url], timeout: 60_000 },
  );
  assert.equal(code, 0, stderr);
  assert.ok(Number(stdout) < 64, `${stdout} MiB for 200 MB of messages`);
});
