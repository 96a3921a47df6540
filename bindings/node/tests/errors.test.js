"use strict";

/** Errors: their kinds, their fields, their texts; options and times. */

const assert = require("node:assert/strict");
const test = require("node:test");
const iokernel = require("..");
const { classes, errorFor } = require("../lib/errors");
const { bytes, milliseconds, query, routeKey, shown, withOptions } = require("../lib/options");

const { BadRequest, Cancelled, Closed, ConfigError, IOKernelError, Kernel, Timeout, Unavailable } = iokernel;

let kernel;
test.before(() => (kernel = new Kernel()));
test.after(() => kernel.close());

test("all are IOKernelErrors, with a name and a stack", () => {
  for (const [name, Kind] of Object.entries(classes)) {
    const error = new Kind("why");
    assert.ok(error instanceof IOKernelError && error instanceof Error);
    assert.equal(error.name, name);
    assert.match(error.stack, new RegExp(`^${name}: why\n`));
  }
});

test("every status of the header has a name, a text and a class", () => {
  const kinds = { "-202": "Timeout", "-302": "ConnectionLost", "-105": "ConfigError", "-401": "IOKernelError" };
  for (const [status, name] of Object.entries(kinds)) {
    const error = errorFor(Number(status));
    assert.equal(error.name, name);
    assert.ok(error.message.length > 5);
  }
  assert.equal(errorFor(-303).statusName, "UNAVAILABLE");
  assert.equal(errorFor(-303).retriable, true);
  assert.equal(errorFor(-301).retriable, false);
});

test("a wrong URL names the key, the value and what was expected", () => {
  const wrong = [
    ["nosuch://x", "scheme", "nosuch"],
    ["redis://x?colour=red", "colour", "red"],
    ["redis://x?timeout=soon", "timeout", "soon"],
  ];
  for (const [url, key, value] of wrong) {
    assert.throws(() => kernel.open(url), (error) => {
      assert.ok(error instanceof ConfigError, String(error));
      assert.ok(error.message.includes(value));
      assert.equal(error.status, -105);
      if (key !== "colour") assert.deepEqual([error.key, error.value], [key, value]);
      assert.match(error.stack, /errors\.test\.js/);
      return true;
    });
  }
  assert.throws(() => new Kernel({ nosuch: 1 }), ConfigError);
  assert.throws(() => kernel.open(17), ConfigError);
  assert.throws(() => kernel.open("redis://x", { heartbeat: {} }), ConfigError);
  assert.throws(() => new Kernel({ channel: { ring: "1000" } }), ConfigError);
});

test("options are query pairs, also in camelCase", () => {
  assert.equal(query({ maxInflight: 5, when_down: "fail", require: true, none: undefined }),
    "max_inflight=5&when_down=fail&require=true");
  assert.equal(withOptions("redis://x?a=1", { clientName: "a b&c" }), "redis://x?a=1&client_name=a%20b%26c");
  assert.equal(withOptions("redis://x"), "redis://x");
  kernel.open("redis://127.0.0.1:1", { maxInflight: 5, whenDown: "fail" });
});

test("URLs are shown without their secrets", () => {
  assert.equal(shown("redis://user:secret@host:1/2?x=y"), "redis://user:***@host:1/2");
  assert.equal(shown("redis://host"), "redis://host");
  assert.equal(shown("unix:///run/redis.sock?db=3"), "unix:///run/redis.sock");
  assert.equal(kernel.open("redis://:secret@127.0.0.1:1").url, "redis://:***@127.0.0.1:1");
});

test("times are seconds, or text with a unit", () => {
  const right = [[0.1, 100], ["250ms", 250], ["5s", 5000], ["2m", 120_000], ["1h", 3_600_000], [Infinity, 0xffffffff]];
  for (const [given, wanted] of right) assert.equal(milliseconds(given), wanted);
  assert.equal(milliseconds(0.0001), 1);
  assert.equal(milliseconds(undefined), 0);
  for (const wrong of ["soon", "5", {}, NaN, true]) assert.throws(() => milliseconds(wrong), BadRequest);
  for (const over of [0, -1, "0s"]) assert.throws(() => milliseconds(over), Timeout);
});

test("sizes and routes", () => {
  assert.deepEqual(["64KiB", "1MiB", "100", "x"].map(bytes), [65536, 1 << 20, 100, undefined]);
  assert.deepEqual(routeKey(5), [5, 0]);
  assert.deepEqual(routeKey(2n ** 40n + 1n), [1, 256]);
  assert.deepEqual(routeKey(-1), [0xffffffff, 0xffffffff]);
  assert.deepEqual(routeKey(0), [0xffffffff, 0xffffffff]);
  for (const wrong of ["a", 0.5, null]) assert.throws(() => routeKey(wrong), BadRequest);
});

test("nobody there: Unavailable says why, and that nothing was sent", async () => {
  const nobody = kernel.open("redis://127.0.0.1:1");
  await assert.rejects(nobody.with({ timeout: 0.1 }).call("PING"), (error) => {
    assert.ok(error instanceof Unavailable);
    assert.match(error.message, /refused/);
    assert.deepEqual([error.fate, error.endpoint], ["not_sent", "redis://127.0.0.1:1"]);
    return true;
  });
  await assert.rejects(nobody.waitReady("50ms"), Unavailable);
  assert.throws(() => nobody.with({ timeout: 0.05 }).callSync("PING"), Unavailable);
  await nobody.close();
});

test("a signal that is over already, and one that ends it", async () => {
  const nobody = kernel.open("redis://127.0.0.1:1");
  const reason = new Error("enough");
  await assert.rejects(nobody.with({ signal: AbortSignal.abort(reason) }).call("PING"), (error) => {
    assert.ok(error instanceof Cancelled);
    assert.deepEqual([error.cause, error.fate, error.code], [reason, "not_sent", "CANCELLED"]);
    return true;
  });
  const controller = new AbortController();
  const asked = nobody.with({ signal: controller.signal }).call("PING");
  setTimeout(() => controller.abort(reason), 10);
  await assert.rejects(asked, (error) => error instanceof Cancelled && error.cause === reason);
  await nobody.close();
});

test("what is closed says so, at once and every time", async () => {
  const endpoint = kernel.open("redis://127.0.0.1:1");
  const waiting = assert.rejects(endpoint.call("PING"), Closed);
  await endpoint.close();
  await waiting;
  await endpoint.close();
  await assert.rejects(endpoint.call("PING"), Closed);
  await assert.rejects(endpoint.with({ timeout: 1 }).call("PING"), Closed);
  await assert.rejects(endpoint.state(), Closed);
  await assert.rejects(endpoint.lease(), Closed);
  await assert.rejects(endpoint.subscribe("SUBSCRIBE", "x"), Closed);
  assert.throws(() => endpoint.send("PING"), Closed);
  assert.throws(() => endpoint.callSync("PING"), Closed);

  const other = new Kernel();
  const orphan = other.open("redis://127.0.0.1:1");
  const lost = assert.rejects(orphan.call("PING"), Closed);
  await other.close();
  await lost;
  await assert.rejects(orphan.call("PING"), Closed);
  assert.throws(() => other.open("redis://x"), Closed);
  assert.throws(() => other.counter("x"), Closed);
  await orphan.close();
});

test("closing is the same promise for everybody", async () => {
  const other = new Kernel();
  const [first, second] = [other.close(), other.close({ drain: 1 })];
  assert.equal(first, second);
  await first;
});

test("what failed outside of any request is a warning of the process", async () => {
  // A one-way request keeps no loop alive.
  const alive = setTimeout(() => {}, 5000);
  const warned = new Promise((resolve) => process.once("warning", resolve));
  const nobody = kernel.open("redis://127.0.0.1:1", { whenDown: "fail", timeout: "100ms" });
  nobody.send("PING");
  const warning = await warned;
  assert.equal(warning.name, "IOKernelWarning");
  assert.match(warning.message, /one-way request failed/);
  clearTimeout(alive);
  await nobody.close();
});
