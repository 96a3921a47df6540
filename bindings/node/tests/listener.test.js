"use strict";

/** Listeners: their handlers, their errors, their end. */

const assert = require("node:assert/strict");
const http = require("node:http");
const net = require("node:net");
const test = require("node:test");
const { setTimeout: sleep } = require("node:timers/promises");
const { Closed, Kernel, RemoteError } = require("..");
const { range, until } = require("./support/tools");

let kernel;
test.before(() => (kernel = new Kernel()));
test.after(() => kernel.close());

function get(url) {
  return new Promise((resolve, reject) => {
    http
      .get(url, { agent: false }, (response) => {
        let body = "";
        response.on("data", (data) => (body += data));
        response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, body }));
      })
      .on("error", reject);
  });
}

test("HTTP: handlers that answer at once, and those that take their time", async () => {
  const listener = kernel.listen("http://127.0.0.1:0");
  const serving = listener.serve(async ({ args: [[method, target], body] }) => {
    assert.deepEqual([method, body], ["GET", null]);
    await sleep(target === "/slow" ? 100 : 0);
    return [200, { "Content-Type": "text/plain" }, `at ${target}`];
  });
  const started = performance.now();
  const all = await Promise.all(["/slow", "/a", "/b", "/slow"].map((path) => get(new URL(path, listener.url))));
  assert.deepEqual(all.map(({ body }) => body), ["at /slow", "at /a", "at /b", "at /slow"]);
  assert.equal(all[0].headers["content-type"], "text/plain");
  assert.ok(performance.now() - started < 5000);
  assert.equal((await listener.state()).state, "up");
  await listener.close();
  await listener.close();
  await serving;
  assert.ok(listener.closed);
  await assert.rejects(get(listener.url));
});

test("Redis: any value is a reply, an error is one of the client's", async () => {
  const listener = kernel.listen("redis://127.0.0.1:0");
  const serving = listener.serve(({ args: [command, ...rest] }) => {
    if (String(command) === "SHOUT") return { upper: String(rest[0]).toUpperCase(), length: rest[0].length };
    if (String(command) === "BIG") return Buffer.alloc(3_000_000, "b");
    throw new RemoteError(`${command} is no command`, { code: "NOCMD" });
  });
  const client = kernel.open(listener.url);
  assert.deepEqual(await client.call("SHOUT", "hello"), { upper: "HELLO", length: 5 });
  await assert.rejects(client.call("LOOK"), (error) => {
    assert.deepEqual([error.name, error.code, error.message], ["RemoteError", "NOCMD", "LOOK is no command"]);
    return true;
  });
  assert.equal((await client.call("BIG")).length, 3_000_000);
  const replies = await Promise.all(range(2000).map((number) => client.call("SHOUT", `x${number}`)));
  assert.deepEqual(replies.map(({ upper }) => upper), range(2000).map((number) => `X${number}`));
  await client.close();
  await listener.close();
  await serving;
});

test("a handler that fails is a warning here, and an error there that tells nothing", async () => {
  const listener = kernel.listen("redis://127.0.0.1:0");
  const serving = listener.serve(({ args: [command] }) => {
    if (String(command) === "DATE") return new Date();
    throw new TypeError("a secret");
  });
  const warnings = [];
  const warned = (warning) => warnings.push(warning.message);
  process.on("warning", warned);
  const client = kernel.open(listener.url);
  for (const command of ["THROW", "DATE"]) {
    await assert.rejects(client.call(command), (error) => {
      assert.deepEqual([error.code, error.message], ["ERR", "the handler failed"]);
      return true;
    });
  }
  await until(() => warnings.length === 2);
  assert.match(warnings[0], /a secret/);
  process.off("warning", warned);
  await client.close();
  await listener.close();
  await serving;
});

test("iterating, answering later, and once", async () => {
  const listener = kernel.listen("redis://127.0.0.1:0");
  const client = kernel.open(listener.url);
  const asked = [client.call("FIRST"), client.call("SECOND")];
  const requests = [(await listener.next()).value, (await listener.next()).value];
  requests[1].reply("second");
  requests[0].reply("first");
  requests[0].reply("again");
  assert.ok(requests[0].gone);
  assert.deepEqual(await Promise.all(asked), ["first", "second"]);
  const refused = assert.rejects(client.call("THIRD"), (error) => error.code === "NO");
  for await (const request of listener) {
    request.error("NO", "not now");
    await refused;
    break;
  }
  assert.ok(listener.closed);
  assert.throws(() => requests[1]._listener._reply(requests[1], "x"), Closed);
  await client.close();
});

test("a client that leaves, and one that is dropped", async () => {
  const listener = kernel.listen("redis://127.0.0.1:0");
  const client = net.connect(Number(new URL(listener.url).port), "127.0.0.1");
  client.write("*1\r\n$4\r\nWAIT\r\n");
  const { value: request } = await listener.next();
  assert.ok(!request.gone);
  // One that merely stops sending may still read.
  client.resetAndDestroy();
  await until(() => request.gone);
  request.reply("nobody hears");

  const other = kernel.open(listener.url);
  const dropped = assert.rejects(other.with({ timeout: 5 }).call("HELLO-THERE"));
  const { value: last } = await listener.next();
  await listener.close();
  assert.ok(last.gone);
  await dropped;
  assert.deepEqual(await listener.next(), { done: true, value: undefined });
  await other.close();
});

test("closing with patience lets what is under way finish", async () => {
  const listener = kernel.listen("http://127.0.0.1:0");
  const serving = listener.serve(async () => {
    await sleep(100);
    return [200, {}, "finished"];
  });
  const asked = get(listener.url);
  await until(async () => (await listener.state()).requests !== 0 || (await listener.state()).conns > 0);
  await sleep(30);
  await listener.close({ drain: 5 });
  assert.equal((await asked).body, "finished");
  await serving;
});

test("an address that is taken, and one that is none", () => {
  const listener = kernel.listen("http://127.0.0.1:0");
  assert.throws(() => kernel.listen(listener.url));
  assert.throws(() => kernel.listen("nosuch://127.0.0.1:0"));
  return listener.close();
});
