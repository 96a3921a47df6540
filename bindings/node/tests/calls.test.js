"use strict";

/** Requests: promises, blocking calls, one-way ones, leases, against a server. */

const assert = require("node:assert/strict");
const { getEventListeners } = require("node:events");
const test = require("node:test");
const { addon } = require("../lib/library");
const { Cancelled, ConnectionLost, Kernel, RemoteError, Timeout } = require("..");
const { range, run, until, withRedis } = require("./support/tools");

const one = withRedis();

test("a reply for each request, in the order of their asking", async () => {
  const order = [];
  const asked = range(1000).map((number) =>
    one.redis.call("ECHO", String(number)).then((reply) => order.push(Number(reply))),
  );
  await Promise.all(asked);
  assert.deepEqual(order, range(1000));
});

test("what one turn asks for goes in one call", async () => {
  const before = addon.submit;
  let calls = 0;
  addon.submit = (...args) => {
    calls++;
    return before(...args);
  };
  try {
    const asked = range(100).map(() => one.redis.call("PING"));
    queueMicrotask(() => asked.push(one.redis.call("PING")));
    await Promise.resolve();
    await Promise.all(asked);
  } finally {
    addon.submit = before;
  }
  assert.equal(calls, 1);
});

test("a batch has a reply for each, and errors as elements", async () => {
  const found = await one.redis.call(["SET", "n:a", "1"], ["INCR", "n:a"], ["LPUSH", "n:a", "x"], ["DEL", "n:a"]);
  assert.deepEqual([found[0], found[1], found[3]], ["OK", 2, 1]);
  assert.ok(found[2] instanceof RemoteError);
  assert.equal(found[2].code, "WRONGTYPE");
});

test("replies of every kind", async () => {
  await one.redis.call("HSET", "n:hash", "field", "value", "größe", Buffer.from([255]));
  assert.deepEqual(await one.redis.call("HGETALL", "n:hash"), {
    field: Buffer.from("value"),
    größe: Buffer.from([255]),
  });
  await one.redis.call("SADD", "n:set", "a", "b");
  const set = await one.redis.call("SMEMBERS", "n:set");
  assert.ok(set instanceof Set);
  assert.deepEqual([...set].map(String).sort(), ["a", "b"]);
  await one.redis.call("SET", "n:big", 9223372036854775806n);
  assert.equal(await one.redis.call("INCR", "n:big"), 9223372036854775807n);
  assert.equal(await one.redis.call("INCRBYFLOAT", "n:float", 0.5).then(String), "0.5");
  assert.deepEqual(await one.redis.call("GET", "n:nothing"), null);
  await one.redis.call("DEL", "n:hash", "n:set", "n:big", "n:float");
});

test("bytes that were given out are nobody else's", async () => {
  await one.redis.call("SET", "n:mine", "m".repeat(100));
  const kept = await one.redis.call("GET", "n:mine");
  for (const round of range(20)) {
    await Promise.all(range(1000).map((number) => one.redis.call("ECHO", `${round}:${number}`.padEnd(100, "x"))));
  }
  assert.equal(kept.toString(), "m".repeat(100));
  await one.redis.call("DEL", "n:mine");
});

test("values of every size, at the edges of rings and buffers", async () => {
  const edges = [0, 1, 65_400, 65_536, 262_000, 262_104, 262_144, 262_200, 1 << 20, 3_000_001];
  for (const size of edges) {
    const value = Buffer.alloc(size, `${size}|`);
    assert.ok(value.equals(await one.redis.call("ECHO", value)), `${size} bytes`);
    const text = "é".repeat(size >> 1);
    assert.equal((await one.redis.call("ECHO", text)).toString(), text, `${size} bytes of text`);
  }
  const together = await Promise.all(edges.map((size) => one.redis.call("ECHO", Buffer.alloc(size, "y"))));
  assert.deepEqual(together.map((value) => value.length), edges);
});

test("blocking calls between others", async () => {
  const asked = range(500).map((number) => one.redis.call("ECHO", String(number)));
  assert.equal(one.redis.callSync("ECHO", "now").toString(), "now");
  assert.throws(() => one.redis.callSync("NOSUCH"), (error) => {
    assert.ok(error instanceof RemoteError);
    assert.match(error.stack, /calls\.test\.js/);
    return true;
  });
  assert.deepEqual((await Promise.all(asked)).map(Number), range(500));
});

test("a time limit, as seconds and as text", async () => {
  const lease = await one.redis.lease();
  await assert.rejects(lease.with({ timeout: 0.03 }).call("BLPOP", "n:never", 0), (error) => {
    assert.ok(error instanceof Timeout);
    assert.equal(error.fate, "maybe_executed");
    return true;
  });
  lease.release();
  await assert.rejects(one.redis.with({ timeout: "30ms" }).call("BLPOP", "n:never", 0), Timeout);
  assert.throws(() => one.redis.with({ timeout: 0.03 }).callSync("BLPOP", "n:never", 0), Timeout);
});

test("cancelled requests end once, whenever the signal comes", async () => {
  const outcomes = await Promise.all(
    range(400).map(async (number) => {
      const controller = new AbortController();
      const asked = one.redis.with({ signal: controller.signal }).call("ECHO", String(number));
      if (number % 4 === 1) controller.abort();
      if (number % 4 === 2) setImmediate(() => controller.abort());
      if (number % 4 === 3) queueMicrotask(() => controller.abort());
      try {
        const found = String(await asked);
        controller.abort();
        return found === String(number) ? "replied" : `another's: ${found}`;
      } catch (error) {
        return error instanceof Cancelled ? "cancelled" : error;
      }
    }),
  );
  assert.deepEqual(outcomes.filter((outcome) => outcome !== "replied" && outcome !== "cancelled"), []);
  assert.ok(outcomes.includes("cancelled") && outcomes.includes("replied"));
  assert.equal(String(await one.redis.call("ECHO", "after")), "after");
});

test("one signal for many requests has one listener, and none when they are over", async () => {
  const { signal } = new AbortController();
  const asked = range(50).map(() => one.redis.with({ signal }).call("PING"));
  assert.equal(getEventListeners(signal, "abort").length, 1);
  await Promise.all(asked);
  await one.redis.with({ signal }).call("NOSUCH").catch(() => {});
  assert.equal(getEventListeners(signal, "abort").length, 0);
});

test("one-way requests are executed, in order", async () => {
  for (const number of range(1000)) assert.equal(one.redis.send("RPUSH", "n:list", number), true);
  await one.redis.drained();
  await until(async () => (await one.redis.call("LLEN", "n:list")) === 1000);
  const list = await one.redis.call("LRANGE", "n:list", 0, -1);
  assert.deepEqual(list.map(Number), range(1000));
  await one.redis.call("DEL", "n:list");
});

test("a program that sends faster than the kernel takes is told", async () => {
  const value = Buffer.alloc(200_000, "x");
  let sent = 0;
  while (one.redis.send("SET", "n:flood", value) && sent < 1000) sent++;
  assert.ok(sent > 5 && sent < 1000, `${sent} were sent`);
  await one.redis.drained();
  assert.equal(one.redis.send("DEL", "n:flood"), true);
});

test("leases are given back clean, also when their work throws", async () => {
  await assert.rejects(
    one.redis.lease(async (lease) => {
      await lease.call("MULTI");
      throw new Error("changed my mind");
    }),
    /changed my mind/,
  );
  const lease = await one.redis.lease({ timeout: 5 });
  assert.equal(await lease.call("PING"), "PONG");
  assert.equal(lease.callSync("PING"), "PONG");
  lease.release();
  lease.release();
  await assert.rejects(lease.call("PING"), /given back/);
  assert.throws(() => lease.with({ route: 1 }), /route/);
  await until(async () => (await one.redis.state()).leases === 0);
});

test("a lease that is not had in time", async () => {
  const kernel = new Kernel();
  const narrow = kernel.open(one.url, { lanes: 1 });
  const first = await narrow.lease();
  await assert.rejects(narrow.lease({ timeout: 0.05 }));
  const controller = new AbortController();
  const waiting = narrow.lease({ signal: controller.signal });
  setTimeout(() => controller.abort(), 10);
  await assert.rejects(waiting, Cancelled);
  first.release();
  await narrow.lease((lease) => lease.call("PING"));
  await kernel.close();
});

test("optimistic transactions of many tasks", async () => {
  await one.redis.call("SET", "n:sum", 0);
  const add = () =>
    one.redis.lease(async (conn) => {
      for (;;) {
        await conn.call("WATCH", "n:sum");
        const sum = Number(await conn.call("GET", "n:sum"));
        await conn.call("MULTI");
        await conn.call("SET", "n:sum", sum + 1);
        if ((await conn.call("EXEC")) !== null) return;
      }
    });
  await Promise.all(range(20).map(add));
  assert.equal(Number(await one.redis.call("GET", "n:sum")), 20);
  await one.redis.call("DEL", "n:sum");
});

test("a conn that is lost: a request fails, unless it is idempotent", async () => {
  const killBlocked = async () => {
    const list = String(await one.redis.call("CLIENT", "LIST"));
    const line = list.split("\n").find((text) => text.includes("cmd=blpop"));
    if (line) await one.redis.call("CLIENT", "KILL", "ID", Number(/^id=(\d+)/.exec(line)[1]));
    return Boolean(line);
  };
  const lost = assert.rejects(one.redis.call("BLPOP", "n:lost", 0), (error) => {
    assert.ok(error instanceof ConnectionLost);
    return error.fate === "maybe_executed";
  });
  await until(killBlocked);
  await lost;
  const again = one.redis.with({ idempotent: true }).call("BLPOP", "n:again", 0);
  await until(killBlocked);
  await one.redis.call("RPUSH", "n:again", "value");
  assert.deepEqual((await again).map(String), ["n:again", "value"]);
});

test("thirty kernels, one after the other", async () => {
  for (const number of range(30)) {
    const kernel = new Kernel();
    assert.equal(String(await kernel.open(one.url).call("ECHO", String(number))), String(number));
    await kernel.close();
  }
});

test("two kernels in one turn keep their records apart", async () => {
  const kernels = range(3).map(() => new Kernel());
  const ends = kernels.map((kernel) => kernel.open(one.url));
  const asked = range(3000).map((number) => ends[number % 3].call("ECHO", `${number}`));
  assert.deepEqual((await Promise.all(asked)).map(Number), range(3000));
  await Promise.all(kernels.map((kernel) => kernel.close()));
});

test("a full ring: everything arrives, in its order, and blocking calls too", async () => {
  const kernel = new Kernel({ channel: { ring: "64KiB" } });
  const narrow = kernel.open(one.url);
  const asked = range(5000).map((number) => narrow.call("ECHO", `${number}`.padEnd(50)));
  assert.equal(narrow.callSync("ECHO", "x".repeat(300_000)).length, 300_000);
  const found = await Promise.all(asked);
  assert.deepEqual(found.map(Number), range(5000));
  await kernel.close();
});

test("requests that are too large are refused, and those beside them are not", async () => {
  const kernel = new Kernel({ channel: { maxRequest: "1MiB" } });
  const redis = kernel.open(one.url);
  const [small, large, after] = await Promise.allSettled([
    redis.call("ECHO", "small"),
    redis.call("ECHO", Buffer.alloc(2 << 20)),
    redis.call("ECHO", "after"),
  ]);
  assert.deepEqual([String(small.value), String(after.value)], ["small", "after"]);
  assert.equal(large.reason.statusName, "TOO_LARGE");
  await kernel.close();
});

test("closing drains, for as long as it may", async () => {
  const kernel = new Kernel();
  const redis = kernel.open(one.url);
  await redis.waitReady(5);
  const slow = redis.call("DEBUG", "SLEEP", "0.1");
  await kernel.close({ drain: 5 });
  assert.equal(await slow, "OK");
});

test("the state of endpoint and kernel", async () => {
  const state = await one.redis.state();
  assert.deepEqual([state.state, state.kind], ["up", "service"]);
  const all = await one.kernel.state();
  assert.equal(all.ready, true);
  await one.kernel.waitReady(1);
});

test("peers that the program tells", async () => {
  const kernel = new Kernel();
  const service = kernel.open("redis+app://cache", { role: "any" });
  const address = one.url.replace("redis://", "");
  await service.setPeers([{ address, weight: 10 }]);
  await service.waitReady(5);
  assert.equal((await service.state()).peers[0].weight, 10);
  assert.equal(String(await service.with({ route: 7 }).call("ECHO", "routed")), "routed");
  await assert.rejects(service.setPeers("one"));
  await assert.rejects(one.redis.setPeers([address]));
  await kernel.close();
});

test("an exception of the program's own reaches the program", async () => {
  const { code, stderr } = await run(
    `const { open } = require("./");
    open(process.argv[1]).call("PING").then(() => { throw new Error("mine"); });`,
    { args: [one.url] },
  );
  assert.equal(code, 1);
  assert.match(stderr, /Error: mine/);
});
