"use strict";

/** Processes: how they end, what keeps them alive, child_process and cluster. */

const assert = require("node:assert/strict");
const test = require("node:test");
const { range, run, until, withRedis } = require("./support/tools");

const one = withRedis();

test("a program ends when nothing is under way, with its endpoints open", async () => {
  const { code, stdout } = await run(
    `const { open, Kernel } = require("./");
    const redis = open(process.argv[1]);
    new Kernel().open("redis://127.0.0.1:1");
    redis.call("PING").then((said) => console.log(said));`,
    { args: [one.url], timeout: 10_000 },
  );
  assert.deepEqual([code, stdout], [0, "PONG\n"]);
});

test("what is under way keeps it alive: requests, subscriptions, leases to come, listeners", async () => {
  const programs = [
    `redis.with({ timeout: 0.4 }).call("BLPOP", "n:never", 0).catch(() => {})`,
    `redis.subscribe("SUBSCRIBE", "x").then((stream) => setTimeout(() => stream.close(), 400).unref())`,
    `{ const l = listen("redis://127.0.0.1:0"); setTimeout(() => l.close(), 400).unref(); }`,
  ];
  for (const program of programs) {
    const { code, stdout } = await run(
      `const { open, listen } = require("./");
      const redis = open(process.argv[1]);
      const started = performance.now();
      process.on("exit", () => console.log(performance.now() - started > 390));
      ${program};`,
      { args: [one.url], timeout: 10_000 },
    );
    assert.deepEqual([code, stdout], [0, "true\n"], program);
  }
});

test("what was sent one-way is sent before the program ends, also by process.exit", async () => {
  for (const end of ["", "process.exit();", "setImmediate(() => process.exit());"]) {
    await one.redis.call("DEL", "n:sent");
    const { code } = await run(
      `const { open } = require("./");
      const redis = open(process.argv[1]);
      for (let n = 0; n < 1000; n++) redis.send("INCR", "n:sent");
      ${end}`,
      { args: [one.url] },
    );
    assert.equal(code, 0);
    assert.equal(Number(await one.redis.call("GET", "n:sent")), 1000, end);
  }
});

test("process.exit in the middle of everything", async () => {
  const { code, stderr } = await run(
    `const { open, listen } = require("./");
    const redis = open(process.argv[1]);
    listen("http://127.0.0.1:0").serve(() => [200, {}, null]);
    redis.call("BLPOP", "n:never", 0);
    redis.lease();
    redis.subscribe("SUBSCRIBE", "x").then(() => redis.call("PING")).then(() => process.exit(7));`,
    { args: [one.url], timeout: 10_000 },
  );
  assert.deepEqual([code, stderr], [7, ""]);
});

test("a process that is told to end by a signal, idle or busy", async () => {
  const { code, stdout } = await run(
    `const { open } = require("./");
    const redis = open(process.argv[1]);
    process.on("SIGTERM", () => { console.log("told"); process.exit(3); });
    redis.subscribe("SUBSCRIBE", "x").then(() => process.kill(process.pid, "SIGTERM"));`,
    { args: [one.url], timeout: 10_000 },
  );
  assert.deepEqual([code, stdout], [3, "told\n"]);
});

test("child_process: a child has its own, the parent notices nothing", async () => {
  const { code, stdout } = await run("tests/programs/child.js", { args: [one.url] });
  assert.deepEqual([code, stdout], [0, "true,true,true true null\n"]);
});

test("cluster: its workers listen on one address, each on a socket of its own", async () => {
  const { code, stdout, stderr } = await run("tests/programs/cluster.js", { args: [one.url] });
  assert.deepEqual([code, stdout, stderr], [0, "3 workers, true\n", ""]);
});

test("clients are gone when their program is", async () => {
  const clients = async () => Number(/connected_clients:(\d+)/.exec(await one.redis.call("INFO", "clients"))[1]);
  const before = await clients();
  await Promise.all(
    range(3).map(() =>
      run(`const { open } = require("./");\nopen(process.argv[1]).callSync("PING");`, { args: [one.url] }),
    ),
  );
  await until(async () => (await clients()) <= before);
});
