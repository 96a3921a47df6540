"use strict";

/** Worker threads: a channel and a loop each, kernels shared and of their own, and their ends. */

const assert = require("node:assert/strict");
const fs = require("node:fs");
const test = require("node:test");
const { Worker } = require("node:worker_threads");
const { BadRequest, Kernel, attach } = require("..");
const { PACKAGE, range, until, withRedis } = require("./support/tools");

const one = withRedis();
const PROLOGUE = `
  const { parentPort, workerData } = require("node:worker_threads");
  const iokernel = require(${JSON.stringify(PACKAGE)});
`;

/** A worker of a text; what it posts, in order, when it has ended, and with which code. */
function work(text, workerData, onMessage = () => {}) {
  return new Promise((resolve, reject) => {
    const said = [];
    const worker = new Worker(PROLOGUE + text, { eval: true, workerData });
    worker.on("message", (message) => {
      said.push(message);
      onMessage(message, worker);
    });
    worker.on("error", reject);
    worker.on("exit", (code) => resolve({ said, code }));
  });
}

const threads = () => fs.readdirSync("/proc/self/task").length;
const files = () => fs.readdirSync("/proc/self/fd").length;

test("an endpoint is shared, with its one conn", async () => {
  const conns = async () => (await one.redis.state()).conns;
  const before = await conns();
  const shared = one.redis.share();
  const text = `
    const redis = iokernel.attach(workerData.shared);
    const numbers = Array.from({ length: 2000 }, (_, at) => workerData.number * 10000 + at);
    Promise.all(numbers.map((number) => redis.call("ECHO", number))).then((found) =>
      parentPort.postMessage(found.every((reply, at) => Number(reply) === numbers[at])));`;
  const mine = Promise.all(range(2000).map((number) => one.redis.call("ECHO", number)));
  const found = await Promise.all(range(4).map((number) => work(text, { shared, number })));
  assert.deepEqual(found, range(4).map(() => ({ said: [true], code: 0 })));
  assert.deepEqual((await mine).map(Number), range(2000));
  assert.equal(await conns(), before);
});

test("a worker that ends, is terminated or fails leaves nothing behind", async () => {
  const { url } = one;
  const shared = one.redis.share();
  const texts = {
    ends: `iokernel.open(workerData.url).call("PING").then((said) => parentPort.postMessage(said));`,
    exits: `iokernel.open(workerData.url).call("PING").then((said) => {
      parentPort.postMessage(said);
      process.exit();
    });`,
    waits: `const redis = iokernel.attach(workerData.shared);
      redis.call("BLPOP", "n:never", 0).catch(() => {});
      redis.subscribe("SUBSCRIBE", "n:worker").then(() => parentPort.postMessage("PONG"));`,
    hangs: `iokernel.open(workerData.url).call("PING").then((said) => { parentPort.postMessage(said); for (;;); });`,
    blocks: `parentPort.postMessage("PONG");
      iokernel.open(workerData.url).with({ timeout: 0.2 }).callSync("BLPOP", "n:never", 0);`,
  };
  const stop = { waits: true, hangs: true };
  const round = async () => {
    for (const [name, text] of Object.entries(texts)) {
      const ended = work(text, { url, shared }, (_, worker) => stop[name] && worker.terminate()).catch(() => null);
      const result = await ended;
      if (name !== "blocks") assert.equal(result.said[0], "PONG", name);
    }
  };
  await round();
  // Without the conns of the kernel that stays: it keeps lanes for others.
  const used = async () => [threads(), files() - (await one.redis.state()).conns];
  const before = await used();
  for (const _ of range(5)) await round();
  let after;
  await until(async () => {
    after = await used();
    return after.every((now, at) => now <= before[at]);
  }).catch(() => assert.deepEqual(after, before));
  assert.equal(await one.redis.call("PING"), "PONG");
});

test("a kernel that is closed under a worker", async () => {
  const kernel = new Kernel();
  const redis = kernel.open(one.url);
  const text = `
    const redis = iokernel.attach(workerData);
    redis.call("BLPOP", "n:never", 0).catch((error) => parentPort.postMessage(error.name));
    redis.call("PING").then((said) => parentPort.postMessage(said));`;
  const { said, code } = await work(text, redis.share(), (message) => message === "PONG" && kernel.close());
  assert.deepEqual([said, code], [["PONG", "Closed"], 0]);
});

test("closing what was attached closes a channel only", async () => {
  const again = attach(one.redis.share());
  assert.equal(await again.call("PING"), "PONG");
  await again.kernel.close();
  assert.equal(await one.redis.call("PING"), "PONG");
  const kernel = attach(one.kernel.share());
  assert.equal(await kernel.open(one.url).call("PING"), "PONG");
  await kernel.close();
  assert.throws(() => attach({}), BadRequest);
});

test("what was closed cannot be attached to", async () => {
  const kernel = new Kernel();
  const shared = kernel.share();
  await kernel.close();
  assert.throws(() => attach(shared));
});

test("counters of all threads are one", async () => {
  const counter = one.kernel.counter("worked");
  const before = counter.value;
  const text = `
    const counter = iokernel.attach(workerData).counter("worked");
    for (let n = 0; n < 100000; n++) counter.inc();`;
  await Promise.all(range(3).map(() => work(text, one.kernel.share())));
  assert.equal(counter.value - before, 300_000n);
});
