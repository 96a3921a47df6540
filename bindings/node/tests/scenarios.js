"use strict";

/** The shared scenarios in Node: `IOK_SCENARIOS=... IOK_REDIS=... node tests/scenarios.js`. */

const assert = require("node:assert/strict");
const { spawn } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { setTimeout: sleep } = require("node:timers/promises");
const vm = require("node:vm");
const { Worker } = require("node:worker_threads");
const iokernel = require("..");

const REDIS = process.env.IOK_REDIS;
const WORKER = path.join(__dirname, "support", "worker.js");

class Skip extends Error {}

// What the scenarios have in common

/** An endpoint in a kernel of its own, for as long as `use` runs. */
async function opened(use, { url = REDIS, ...config } = {}) {
  const kernel = new iokernel.Kernel(config);
  try {
    return await use(kernel.open(url), kernel);
  } finally {
    await kernel.close();
  }
}

/** `{"bytes": "v"}` as the binding gives it. */
function asValue(given) {
  const [[kind, value]] = Object.entries(given);
  if (kind === "array") return value.map(asValue);
  if (kind === "bytes") return Buffer.from(value);
  return kind === "nil" ? null : value;
}

/** The call ends as a scenario says: `reply` or `error`. */
async function expect(wanted, call) {
  let found;
  try {
    found = await call();
  } catch (error) {
    if (!wanted.error || !(error instanceof iokernel.IOKernelError)) throw error;
    checkError(error, wanted.error);
    return;
  }
  assert.ok(wanted.reply, `${found}: expected ${JSON.stringify(wanted.error)}`);
  assert.deepEqual(found, asValue(wanted.reply));
}

function checkError(error, { error: status, code, fate, names }) {
  assert.equal(error.statusName.toLowerCase(), status, String(error));
  if (code) assert.equal(error.code, code);
  if (fate) assert.equal(error.fate, fate);
  if (names) assert.ok(error.message.includes(names), `${error}: expected that it names ${names}`);
}

/** A request whose `$name`s are filled in. */
function filled(request, values) {
  return request.map((part) => (String(part).startsWith("$") ? String(values[part.slice(1)]) : part));
}

/** `ring=64KiB&push_buffer=64KiB` as options of a channel. */
const channelOptions = (text) => Object.fromEntries(new URLSearchParams(text));

const range = (count) => Array.from({ length: count }, (_, number) => number);

const clients = async (redis) => /connected_clients:(\d+)/.exec(await redis.call("INFO", "clients"))[1];

/** Runs tests/support/worker.js; what it posts at its end. */
function inWorker(task) {
  return new Promise((resolve, reject) => {
    const worker = new Worker(WORKER, { workerData: task });
    let said;
    worker.on("message", (message) => (said = message));
    worker.on("error", reject);
    worker.on("exit", (code) => (code === 0 ? resolve(said) : reject(new Error(`the worker ended with ${code}`))));
  });
}

/** Runs curl; what it says. */
function curl(...args) {
  return new Promise((resolve, reject) => {
    const child = spawn("curl", ["-s", "-m", "10", ...args], { stdio: ["ignore", "pipe", "inherit"] });
    let said = "";
    child.stdout.on("data", (data) => (said += data));
    child.on("error", reject);
    child.on("close", () => resolve(said));
  });
}

// The scenarios

const scenarios = {
  async echo({ values }) {
    const kernel = new iokernel.Kernel();
    for (const value of values) assert.deepEqual(await kernel.echo(value), value);
    await kernel.close();
  },

  async "get-set"({ calls }) {
    await opened(async (redis) => {
      for (const one of calls) await expect(one, () => redis.call(...one.call));
    });
  },

  async "errors-and-fates"({ calls, urls, refused }) {
    await scenarios["get-set"]({ calls });
    await opened(async (_, kernel) => {
      for (const wrong of urls) await expect(wrong, () => kernel.open(wrong.url));
    });
    await opened(
      (nobody) => expect(refused, () => nobody.with({ timeout: refused.timeout / 1000 }).call(...refused.call)),
      { url: refused.url },
    );
  },

  async timeout(one) {
    await opened(async (redis) => {
      await redis.waitReady(5);
      await expect(one, () => redis.with({ timeout: one.timeout / 1000 }).call(...one.slow));
      await expect(one.then, () => redis.call(...one.then.call));
      await sleep(400);
      await expect(one, () => redis.with({ timeout: one.timeout / 1000 }).callSync(...one.slow));
      await expect(one.then, () => redis.callSync(...one.then.call));
    });
  },

  async cancel(one) {
    await opened(async (redis) => {
      await redis.waitReady(5);
      const controller = new AbortController();
      const slow = redis.with({ signal: controller.signal }).call(...one.slow);
      await sleep(one.cancel_after);
      const started = performance.now();
      controller.abort();
      await expect(one, () => slow);
      assert.ok(performance.now() - started < one.ends_within, "it did not end at once");
      await expect(one.then, () => redis.call(...one.then.call));
    });
  },

  async pubsub({ subscribe, publish, messages }) {
    await opened(async (redis) => {
      const stream = await redis.subscribe(...subscribe);
      for (const number of range(messages)) redis.send(...filled(publish, { number }));
      const found = [];
      for await (const [, , message] of stream) {
        found.push(message.toString());
        if (found.length === messages) break;
      }
      assert.deepEqual(found, range(messages).map(String));
      assert.ok(stream.closed, "it goes on after its end");
      assert.deepEqual(await stream.next(), { done: true, value: undefined });
    });
  },

  async "pushes-lost"({ channel, subscribe, publish, bytes, messages }) {
    await opened((writer) =>
      opened(
        async (reader) => {
          const stream = await reader.subscribe(...subscribe);
          // These calls hold up the loop, and with it whoever reads.
          for (const number of range(messages)) {
            writer.callSync(...filled(publish, { bytes: String(number).padStart(bytes, "0") }));
          }
          const found = [];
          while (found.length + stream.lost < messages) {
            const message = await stream.get(2).catch((error) => assert.equal(error.name, "Timeout"));
            if (!message) break;
            found.push(Number(message[2]));
          }
          assert.ok(stream.lost > 0, "nothing was lost");
          assert.equal(found.length + stream.lost, messages);
          assert.deepEqual(found, [...new Set(found)].sort((a, b) => a - b));
        },
        { channel: channelOptions(channel) },
      ),
    );
  },

  async "value-1MiB"({ bytes }) {
    const whole = Buffer.alloc(bytes, require("node:crypto").randomBytes(65537));
    await opened(async (redis) => {
      assert.equal(await redis.call("SET", "s:value", whole), "OK");
      assert.ok(whole.equals(await redis.call("GET", "s:value")), "another value came back");
      await redis.call("DEL", "s:value");
    });
  },

  "value-64MiB": (one) => scenarios["value-1MiB"](one),

  async many({ requests, call, timer }) {
    await opened(async (redis) => {
      const before = await clients(redis);
      let fired = 0;
      const ticking = setInterval(() => fired++, timer);
      const found = await Promise.all(range(requests).map((number) => redis.call(...filled(call, { number }))));
      // As many at a time, each asked when another was answered: turns of the loop between them.
      let next = 0;
      const task = async () => {
        while (next < requests) {
          const number = next++;
          assert.equal(String(await redis.call(...filled(call, { number }))), String(number));
        }
      };
      await Promise.all(range(100).map(task));
      clearInterval(ticking);
      assert.deepEqual(found.map(String), range(requests).map(String));
      assert.ok(fired > 0, "no timer fired meanwhile");
      assert.equal(await clients(redis), before, "more than one conn");
    });
  },

  async "back-pressure"({ channel, requests, call }) {
    await opened(
      async (redis) => {
        const found = await Promise.all(range(requests).map((number) => redis.call(...filled(call, { number }))));
        assert.deepEqual(found, range(requests).map((number) => number + 1));
        const order = await redis.call("LRANGE", "s:order", 0, -1);
        assert.deepEqual(order.map(String), range(requests).map(String));
      },
      { channel: channelOptions(channel) },
    );
  },

  async "lost-connection"(one) {
    await opened(async (redis) => {
      await redis.lease(async (lease) => {
        const id = await lease.call("CLIENT", "ID");
        const waiting = lease.call(...one.lease);
        const ended = expect(one, () => waiting);
        await sleep(50);
        assert.equal(await redis.call(...filled(one.kill, { id })), 1);
        await ended;
      });
      await expect(one.then, () => redis.call(...one.then.call));
    });
  },

  async transaction({ calls }) {
    await opened(async (redis) => {
      const beside = range(100).map((number) => redis.call("ECHO", String(number)));
      await redis.lease(async (conn) => {
        for (const one of calls) {
          await expect(one, () => conn.call(...one.call));
          assert.equal(String(await redis.call("ECHO", "beside")), "beside");
        }
      });
      assert.deepEqual((await Promise.all(beside)).map(String), range(100).map(String));
    });
  },

  async listen({ url, path: wanted, status, body }) {
    const kernel = new iokernel.Kernel();
    const listener = kernel.listen(url);
    const serving = listener.serve(({ args: [[method, target]] }) =>
      method === "GET" && target === wanted ? [status, {}, body] : [404, {}, null],
    );
    const said = await curl("-w", " %{http_code}", listener.url.replace(/\/$/, "") + wanted);
    await listener.close();
    await serving;
    await kernel.close();
    assert.equal(said, `${body} ${status}`);
  },

  async fork() {
    throw new Skip("Node has no fork(); tests/processes.test.js shows child_process and cluster");
  },

  async close(one) {
    const kernel = new iokernel.Kernel();
    const redis = kernel.open(REDIS);
    await redis.waitReady(5);
    const slow = expect(one, () => redis.call(...one.slow));
    const started = performance.now();
    await Promise.all([kernel.close(), slow]);
    await expect(one, () => redis.call("PING"));
    await expect(one, () => redis.callSync("PING"));
    await kernel.close();
    await redis.close();
    await redis.close();
    assert.ok(performance.now() - started < one.ends_within, "it took too long");
  },

  async threads({ requests, call }) {
    await opened(async (redis) => {
      const shared = redis.share();
      const tasks = ["a", "b"].map((name) => ({ shared, requests, call: filled(call, { number: `${name}$number` }) }));
      const own = inWorker({ url: REDIS, requests, call: filled(call, { number: "c$number" }) });
      assert.deepEqual(await Promise.all([...tasks.map(inWorker), own]), [requests, requests, requests]);
    });
  },

  async loops({ rounds, call }) {
    await opened(async (redis) => {
      const files = () => fs.readdirSync("/proc/self/fd").length;
      const ask = () => inWorker({ shared: redis.share(), requests: 10, call });
      await ask();
      await sleep(50);
      const before = files();
      for (const _ of range(rounds)) assert.equal(await ask(), 10);
      await sleep(50);
      assert.ok(files() <= before, `${before} descriptors became ${files()}`);
      assert.equal(String(await redis.call("ECHO", "whole")), "whole");
    });
  },

  async idle({ idle, cpu_at_most: most }) {
    await opened(async (redis) => {
      const stream = await redis.subscribe("SUBSCRIBE", "s:idle");
      const next = stream.get();
      await redis.call("PING");
      await sleep(50);
      const before = process.cpuUsage();
      await sleep(idle);
      const { user, system } = process.cpuUsage(before);
      await redis.call("PUBLISH", "s:idle", "end");
      await next;
      stream.close();
      assert.ok((user + system) / 1000 <= most, `${(user + system) / 1000} ms of CPU time`);
    });
  },

  async "stack-while-hung"({ path: wanted, hang }) {
    const said = JSON.parse(await saidWhileHung(wanted, hang));
    assert.ok(said.main.text.includes("hangInHere"), JSON.stringify(said.main));
  },

  async counters({ path: wanted, counter, add, line }) {
    const said = await saidWhileHung(wanted, 1000, (kernel, hang) => {
      kernel.counter(counter).inc(add);
      hang();
    });
    assert.ok(said.split("\n").some((one) => one.startsWith(line)), said.slice(0, 300));
  },

  async markers({ path: wanted, marker }) {
    const said = await saidWhileHung(wanted, 1000, (kernel, hang) => kernel.marker(marker, hang));
    assert.ok(JSON.stringify(JSON.parse(said).main.markers).includes(marker), said);
  },
};

/** One call of V8's that computes and lets nothing else of the program run: a search that goes astray. */
function hangInHere(milliseconds) {
  const search = `/^(a|aa)+$/.test("${"a".repeat(60)}b")`;
  assert.throws(() => vm.runInThisContext(search, { timeout: milliseconds }), { code: "ERR_SCRIPT_EXECUTION_TIMEOUT" });
}

/** What somebody else hears who asks the kernel's admin endpoint for a path while we are in `hangInHere`. */
async function saidWhileHung(wanted, milliseconds, use = (_, hang) => hang()) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "iok-scenario-"));
  const kernel = new iokernel.Kernel({ admin: `unix:${folder}/admin` });
  try {
    const ask = `sleep 0.3; curl -s -m 5 --unix-socket ${folder}/admin http://localhost${wanted} >${folder}/said;
      date +%s%N >${folder}/when`;
    const asker = spawn("sh", ["-c", ask], { stdio: "ignore" });
    const ended = new Promise((resolve) => asker.on("exit", resolve));
    use(kernel, () => hangInHere(milliseconds));
    const over = Date.now();
    await ended;
    const answered = Number(fs.readFileSync(`${folder}/when`, "utf8")) / 1e6;
    assert.ok(answered < over, "no answer came while the program hung");
    return fs.readFileSync(`${folder}/said`, "utf8");
  } finally {
    await kernel.close();
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

async function show(one, number) {
  const title = `${number} - ${one.name}`;
  try {
    const run = scenarios[one.name];
    assert.ok(run, "no such scenario here");
    await run(one);
  } catch (error) {
    if (error instanceof Skip) return `ok ${title} # SKIP ${error.message}`;
    return `not ok ${title} # ${(error.stack || String(error)).split(/\s*\n\s*/).slice(0, 4).join(" | ")}`;
  }
  return `ok ${title}`;
}

async function main() {
  const { scenarios: all } = JSON.parse(fs.readFileSync(process.env.IOK_SCENARIOS, "utf8"));
  process.stdout.write(`1..${all.length}\n`);
  let failed = 0;
  for (const [at, one] of all.entries()) {
    const line = await show(one, at + 1);
    if (line.startsWith("not")) failed++;
    process.stdout.write(`${line}\n`);
  }
  process.exitCode = failed ? 1 : 0;
}

main();
