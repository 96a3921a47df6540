"use strict";

/** Values between JavaScript and MessagePack, through the I/O thread and back. */

const assert = require("node:assert/strict");
const test = require("node:test");
const iokernel = require("..");
const { decode, pack, unpack } = require("../lib/values");

const { Attributed, BadRequest, Extension, Kernel, RemoteError } = iokernel;
const back = (value) => unpack(pack(value));

let kernel;
test.before(() => (kernel = new Kernel()));
test.after(() => kernel.close());

test("numbers keep their value and their kind", () => {
  const whole = [0, 127, 128, 255, 65536, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1];
  for (const number of whole.flatMap((one) => [one, -one])) assert.equal(back(number), number || 0);
  for (const number of [0.1, -1.5, 1e300, Infinity, -Infinity]) assert.equal(back(number), number);
  assert.ok(Number.isNaN(back(NaN)));
});

test("integers beyond 32 bits travel as integers", () => {
  assert.equal(pack(2 ** 40)[0], 0xd3);
  assert.equal(pack([2 ** 40])[1], 0xd3);
  assert.equal(pack({ a: 2 ** 40 })[3], 0xd3);
  assert.equal(pack(0.5)[0], 0xcb);
});

test("integers beyond 2^53 are bigints, and those beyond 64 bits too", () => {
  for (const number of [2n ** 53n + 1n, -(2n ** 63n), 2n ** 64n - 1n, 2n ** 64n, -(2n ** 63n) - 1n, 10n ** 40n]) {
    assert.equal(back(number), number);
  }
  assert.equal(back(5n), 5);
});

test("text is any text", () => {
  for (const text of ["", "größer ✓ 🦀", "x".repeat(70_000), "\0", "é".repeat(31), "é".repeat(300)]) {
    assert.equal(back(text), text);
  }
  assert.equal(back("\ud800"), "\ufffd");
});

test("bytes are Buffers, whatever view they were", () => {
  const given = new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]);
  const views = [Buffer.from(given), given, given.buffer, new DataView(given.buffer), new Uint16Array(given.buffer)];
  for (const view of views) assert.deepEqual(back(view), Buffer.from(given));
  assert.deepEqual(back(given.subarray(2, 4)), Buffer.from([3, 4]));
  assert.deepEqual(back(new Float64Array(given.buffer)), Buffer.from(given));
});

test("maps are objects where their keys are text, or bytes that are", () => {
  assert.deepEqual(back(new Map([["a", 1], [Buffer.from("b"), 2]])), { a: 1, b: 2 });
  assert.deepEqual(back(new Map([[1, "one"]])), new Map([[1, "one"]]));
  assert.deepEqual(back(new Map([[Buffer.from([255]), 1]])), new Map([[Buffer.from([255]), 1]]));
  assert.deepEqual(back({ a: [{ b: { c: null } }] }), { a: [{ b: { c: null } }] });
  assert.deepEqual(back(Object.assign(Object.create(null), { x: 1 })), { x: 1 });
});

test("a key called __proto__ is a key like others", () => {
  const found = back(new Map([["__proto__", { polluted: true }]]));
  assert.deepEqual(Object.keys(found), ["__proto__"]);
  assert.equal(found.polluted, undefined);
  assert.equal({}.polluted, undefined);
  assert.deepEqual(back(found), found);
});

test("many keys are many keys", () => {
  const many = Object.fromEntries(Array.from({ length: 70_000 }, (_, number) => [`k${number}`, number]));
  assert.deepEqual(back(many), many);
});

test("sets, errors, attributes and extensions come back, nested too", () => {
  const set = back(new Set([1, "a", new Set([2n ** 70n])]));
  assert.ok(set instanceof Set && set.has("a"));
  assert.deepEqual([...[...set][2]], [2n ** 70n]);
  const error = back([new RemoteError("no such key", { code: "NOKEY" })])[0];
  assert.ok(error instanceof RemoteError);
  assert.deepEqual([error.code, error.message, error.fate], ["NOKEY", "no such key", "replied"]);
  assert.deepEqual(back(new Attributed([1], { ttl: 5 })), new Attributed([1], { ttl: 5 }));
  assert.deepEqual(back(new Extension(20, Buffer.from("abc"))), new Extension(20, Buffer.from("abc")));
  for (const size of [0, 1, 2, 4, 8, 16, 17, 300, 70_000]) {
    assert.equal(back(new Extension(16, Buffer.alloc(size, 7))).data.length, size);
  }
});

test("a verbatim text loses its format", () => {
  const verbatim = Buffer.concat([Buffer.from([0xc7, 7, 3]), Buffer.from("txt:abc")]);
  assert.equal(unpack(verbatim), "abc");
});

test("undefined is nil", () => {
  assert.equal(back(undefined), null);
  assert.deepEqual(back([undefined]), [null]);
});

test("what has no MessagePack is refused, with its name", () => {
  class Thing {}
  const wrong = [[new Date(), /Date/], [() => 1, /function/], [Symbol("x"), /symbol/], [new Thing(), /Thing/]];
  for (const [value, named] of wrong) {
    assert.throws(() => pack(value), (error) => error instanceof BadRequest && named.test(error.message));
    assert.throws(() => pack([{ deep: value }]), BadRequest);
  }
  assert.throws(() => pack(new Extension(128, Buffer.alloc(0))), BadRequest);
  assert.throws(() => pack(new Extension(1, "text")), BadRequest);
});

test("what holds itself is refused", () => {
  const ring = [];
  ring.push(ring);
  assert.throws(() => pack(ring), BadRequest);
});

test("arguments of the program are not changed", async () => {
  const endpoint = kernel.open("redis://127.0.0.1:1");
  const batch = [["SET", "key", 2 ** 40], new Set(["a"])];
  const before = structuredClone(batch);
  await assert.rejects(endpoint.with({ timeout: 0.05 }).call(...batch));
  assert.deepEqual(batch, before);
  await endpoint.close();
});

test("a getter that asks for something itself disturbs nothing", async () => {
  const asked = [];
  const value = {
    get inner() {
      asked.push(kernel.echo("inner"));
      return "outer";
    },
  };
  assert.deepEqual(await kernel.echo(value), { inner: "outer" });
  assert.deepEqual(await Promise.all(asked), ["inner"]);
});

test("replies that are bytes or text come bare", () => {
  const data = Buffer.from("xxbytesxx");
  assert.deepEqual(decode(2, data, 2, 7), Buffer.from("bytes"));
  assert.equal(decode(3, data, 2, 7), "bytes");
  assert.equal(decode(0, data, 0, 0), null);
});

test("a reply cut short is an error, not a value", () => {
  const whole = pack(["a", { b: "ccc" }, 2 ** 40]);
  for (let end = 0; end < whole.length; end++) assert.throws(() => unpack(whole.subarray(0, end)));
});

test("the program's own msgpackr is another one", () => {
  const theirs = require("msgpackr");
  const mine = theirs.pack({ a: 1 });
  assert.deepEqual(theirs.unpack(mine), { a: 1 });
  back(new Map([["b", 2]]));
  assert.deepEqual(theirs.unpack(mine), { a: 1 });
  assert.throws(() => theirs.unpack(pack(new Extension(20, Buffer.from("x")))), /nknown ext/);
});

test("ten thousand values at a time keep apart", async () => {
  const values = Array.from({ length: 10_000 }, (_, number) => [number, "x".repeat(number % 300), { n: number }]);
  assert.deepEqual(await Promise.all(values.map((value) => kernel.echo(value))), values);
});
