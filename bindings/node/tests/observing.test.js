"use strict";

/** What is seen from outside: cells, markers, stacks. */

const assert = require("node:assert/strict");
const crypto = require("node:crypto");
const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const test = require("node:test");
const { setTimeout: sleep } = require("node:timers/promises");
const { Worker } = require("node:worker_threads");
const { ConfigError, Kernel } = require("..");
const { PACKAGE, range, run, temporaryFolder, withRedis } = require("./support/tools");

const one = withRedis();
let folder;
let kernel;
let admin;

test.before(() => {
  folder = temporaryFolder();
  admin = path.join(folder, "admin");
  kernel = new Kernel({ admin: `unix:${admin}`, name: "seen" });
});
test.after(async () => {
  await kernel.close();
  fs.rmSync(folder, { recursive: true });
});

function get(wanted) {
  return new Promise((resolve, reject) => {
    http
      .get({ socketPath: admin, path: wanted, agent: false }, (response) => {
        let body = "";
        response.on("data", (data) => (body += data));
        response.on("end", () => resolve(body));
      })
      .on("error", reject);
  });
}

/** What a worker hears who asks while this thread runs `hang`. */
async function seenWhile(wanted, hang) {
  const asker = new Worker(
    `const { parentPort, workerData } = require("node:worker_threads");
    const { execFileSync } = require("node:child_process");
    setTimeout(() => {
      const { admin, wanted } = workerData;
      const said = execFileSync("curl", ["-s", "-m", "5", "--unix-socket", admin, "http://localhost" + wanted]);
      parentPort.postMessage({ said: said.toString(), when: Date.now() });
    }, 100);`,
    { eval: true, workerData: { admin, wanted } },
  );
  await new Promise((resolve) => asker.once("online", resolve));
  const heard = new Promise((resolve) => asker.once("message", resolve));
  const exited = new Promise((resolve) => asker.once("exit", resolve));
  hang();
  const over = Date.now();
  const { said, when } = await heard;
  await exited;
  assert.ok(when < over, "no answer came meanwhile");
  return said;
}

function spin(milliseconds) {
  const over = performance.now() + milliseconds;
  while (performance.now() < over);
}

test("counters, sums, gauges and histograms, with labels", async () => {
  const paid = kernel.counter("paid", { help: "Orders.", shop: "north" });
  paid.inc();
  paid.inc(41);
  kernel.counter("paid", { labels: { shop: "north" } }).inc(0);
  const worked = kernel.sum("worked", { unit: "seconds" });
  worked.inc(0.25);
  worked.inc(0.5);
  const depth = kernel.gauge("depth", { merge: "max" });
  depth.set(5);
  depth.inc();
  depth.dec(2.5);
  const took = kernel.histogram("took", { unit: "seconds", buckets: [0.1, 1] });
  for (const value of [0.05, 0.1, 0.5, 3]) took.observe(value);
  const text = await get("/metrics");
  for (const wanted of [/^paid_total\{.*shop="north".*\} 42$/m, /^worked_seconds_total.* 0\.75$/m, /^depth.* 3\.5$/m]) {
    assert.match(text, wanted);
  }
  assert.match(text, /^took_seconds_bucket\{.*le="0\.1".*\} 2$/m);
  assert.match(text, /^took_seconds_bucket\{.*le="\+Inf".*\} 4$/m);
  assert.match(text, /^took_seconds_sum.* 3\.65$/m);
  assert.deepEqual([depth.value, worked.value], [3.5, 0.75]);
});

test("timing: work that returns, throws, and takes its time", async () => {
  const took = kernel.histogram("timed", { unit: "seconds" });
  assert.equal(took.time(() => 5), 5);
  assert.throws(() => took.time(() => { throw new Error("no"); }), /no/);
  assert.equal(await took.time(async () => { await sleep(10); return 6; }), 6);
  await assert.rejects(took.time(async () => { throw new Error("later"); }), /later/);
  assert.match(await get("/metrics"), /^timed_seconds_count.* 4$/m);
});

test("what cannot be counted is refused", () => {
  assert.throws(() => kernel.counter("no name"), ConfigError);
  assert.throws(() => kernel.gauge("paid"), ConfigError);
  for (const wrong of [-1, 0.5, NaN, "1"]) assert.throws(() => kernel.counter("paid").inc(wrong), RangeError);
  const worked = kernel.sum("worked", { unit: "seconds" });
  for (const wrong of [-1, Infinity]) assert.throws(() => worked.inc(wrong), RangeError);
  assert.throws(() => kernel.histogram("h").observe(NaN), RangeError);
  assert.throws(() => kernel.gauge("g").set("5"), RangeError);
});

test("markers go with the requests made inside of them, also after an await", async () => {
  const redis = kernel.open(one.url);
  const waiting = [];
  const marked = kernel.marker("outer", { id: 7 }, async () => {
    await redis.call("PING");
    waiting.push(redis.with({ timeout: 2 }).call("BLPOP", "n:outer", 0));
    await kernel.marker("inner", async () => {
      await sleep(1);
      waiting.push(redis.with({ timeout: 2 }).call("BLPOP", "n:inner", 0));
      await sleep(50);
    });
    return "result";
  });
  waiting.push(redis.with({ timeout: 2 }).call("BLPOP", "n:none", 0));
  await sleep(30);
  const { requests } = JSON.parse(await get("/requests"));
  const { main } = JSON.parse(await get("/state"));
  assert.equal(await marked, "result");
  const markers = requests.filter(({ command }) => command === "BLPOP").map(({ marker }) => marker ?? null);
  assert.deepEqual(markers.map(String).sort(), ["inner", "null", "outer id=7"]);
  assert.match(JSON.stringify(main.markers), /outer id=7/);
  for (const name of ["outer", "inner", "none"]) await redis.call("RPUSH", `n:${name}`, "x");
  await Promise.all(waiting);
  assert.doesNotMatch(JSON.stringify(JSON.parse(await get("/state")).main.markers), /outer/);
  await redis.close();
});

test("markers: what they return and throw; too many, too long, with odd characters", async () => {
  assert.equal(kernel.marker("sync", () => 5), 5);
  assert.throws(() => kernel.marker("throws", () => { throw new Error("no"); }), /no/);
  await assert.rejects(kernel.marker("rejects", async () => { throw new Error("later"); }), /later/);
  const nest = (depth) => (depth === 0 ? "deepest" : kernel.marker(`level ${depth}`, () => nest(depth - 1)));
  assert.equal(nest(40), "deepest");
  let seen;
  await kernel.marker(`${"é".repeat(60)}\0`, async () => (seen = JSON.parse(await get("/state"))));
  assert.match(JSON.stringify(seen.main.markers), /é{28}[^é]/);
  assert.doesNotMatch(await get("/state"), /level 1|é/);
});

test("the stack of a loop in JavaScript, with its callers", async () => {
  function innermost() {
    spin(600);
  }
  function outermost() {
    innermost();
  }
  const { main } = JSON.parse(await seenWhile("/stack", outermost));
  assert.match(main.text, /at spin .*observing\.test\.js:\d+[\s\S]*at innermost [\s\S]*at outermost /);
});

test("the stack of a call into C: native frames, in time", async () => {
  const said = await seenWhile("/stack", function inOpenSsl() {
    crypto.pbkdf2Sync("password", "salt", 2_000_000, 32, "sha512");
  });
  const { main } = JSON.parse(said);
  assert.doesNotMatch(main.text ?? "", /spin/);
  assert.ok(main.native.length > 0, said);
});

test("the stacks of an idle program, and of its workers, again and again", async () => {
  const worker = new Worker(
    `require(${JSON.stringify(PACKAGE)});
    function spinInWorker(over) { while (performance.now() < over); }
    spinInWorker(performance.now() + 1500);`,
    { eval: true },
  );
  await new Promise((resolve) => worker.once("online", resolve));
  await sleep(100);
  const { threads } = JSON.parse(await get("/stack?threads=all"));
  assert.match(threads.map(({ text }) => text).join(), /spinInWorker/);
  const silent = threads.map(({ error }) => error).filter((error) => error && !error.includes("blocks SIGURG"));
  assert.deepEqual(silent, []);
  for (const _ of range(20)) JSON.parse(await get("/stack"));
  await worker.terminate();
  for (const _ of range(5)) JSON.parse(await get("/stack?threads=all"));
  assert.equal(await kernel.echo("alive"), "alive");
});

test("the default kernel's admin endpoint, by the environment", async () => {
  const { code, stdout } = await run(
    `const { defaultKernel } = require("./");
    console.log(defaultKernel().closed, require("node:fs").existsSync(process.argv[1]));`,
    { args: [path.join(folder, "other")], env: { IOKERNEL_ADMIN: `unix:${path.join(folder, "other")}` } },
  );
  assert.deepEqual([code, stdout], [0, "false true\n"]);
});
