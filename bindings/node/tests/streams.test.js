"use strict";

/** Subscriptions: their order, their ends, what is lost, and who lets them go. */

const assert = require("node:assert/strict");
const { Readable } = require("node:stream");
const test = require("node:test");
const { Cancelled, Closed, Kernel, RemoteError, Timeout } = require("..");
const { collect, range, until, withRedis } = require("./support/tools");

const one = withRedis();
const publish = (channel, ...messages) => Promise.all(messages.map((text) => one.redis.call("PUBLISH", channel, text)));
const listeners = async (channel) => (await one.redis.call("PUBSUB", "NUMSUB", channel))[channel]
  ?? (await one.redis.call("PUBSUB", "NUMSUB", channel))[1];

test("messages in order, by iterating and by asking", async () => {
  const stream = await one.redis.subscribe("SUBSCRIBE", "n:news");
  await publish("n:news", "a", "b", "c");
  assert.deepEqual(await stream.get(1), ["message", Buffer.from("n:news"), Buffer.from("a")]);
  const found = [];
  for await (const [, , text] of stream) {
    found.push(String(text));
    if (found.length === 2) break;
  }
  assert.deepEqual(found, ["b", "c"]);
  assert.ok(stream.closed);
  await until(async () => Number(await listeners("n:news")) === 0);
});

test("it is a stream of Node's, too", async () => {
  const stream = await one.redis.subscribe("SUBSCRIBE", "n:readable");
  await publish("n:readable", ...range(10).map(String));
  const readable = Readable.from(stream);
  const numbers = [];
  for await (const [, , text] of readable) if (numbers.push(Number(text)) === 10) break;
  assert.deepEqual(numbers, range(10));
  await until(() => stream.closed);
});

test("several who wait, and several subscriptions to one channel", async () => {
  const streams = await Promise.all(range(3).map(() => one.redis.subscribe("SUBSCRIBE", "n:many")));
  const waiting = streams.flatMap((stream) => [stream.get(5), stream.get(5)]);
  await publish("n:many", "first");
  await publish("n:many", "second");
  const found = (await Promise.all(waiting)).map(([, , text]) => String(text));
  assert.deepEqual(found, range(3).flatMap(() => ["first", "second"]));
  for (const stream of streams) stream.close();
});

test("a subscription that is refused", async () => {
  await assert.rejects(one.redis.subscribe("NOSUCH", "x"));
  await assert.rejects(one.redis.subscribe());
  await assert.rejects(one.redis.subscribe("SUBSCRIBE", new Date()));
  await assert.rejects(one.redis.with({ buffer: 0 }).subscribe("SUBSCRIBE", "x"));
});

test("no message in time, and none after the end", async () => {
  const stream = await one.redis.subscribe("SUBSCRIBE", "n:quiet");
  await assert.rejects(stream.get("20ms"), Timeout);
  const waiting = assert.rejects(stream.get(), Closed);
  await publish("n:quiet", "left");
  stream.close();
  stream.close();
  await waiting.catch(() => {});
  await assert.rejects(async () => {
    for (;;) await stream.get();
  }, Closed);
});

test("a signal ends it, before and after it stands", async () => {
  const controller = new AbortController();
  const stream = await one.redis.with({ signal: controller.signal }).subscribe("SUBSCRIBE", "n:signal");
  setTimeout(() => controller.abort(), 10);
  for await (const _ of stream) assert.fail("nothing was published");
  assert.ok(stream.closed);
  await assert.rejects(one.redis.with({ signal: controller.signal }).subscribe("SUBSCRIBE", "n:signal"), Cancelled);
});

test("what nobody reads is dropped and counted", async () => {
  const stream = await one.redis.with({ buffer: 10 }).subscribe("SUBSCRIBE", "n:flood");
  await publish("n:flood", ...range(100).map(String));
  await until(() => stream.lost === 90);
  const found = [];
  for (const _ of range(10)) found.push(Number((await stream.get(1))[2]));
  assert.deepEqual(found, range(10));
  stream.close();
});

test("it is made again after its conn was lost, and says so", async () => {
  const kernel = new Kernel();
  const redis = kernel.open(one.url, { clientName: "n-again" });
  const stream = await redis.subscribe("SUBSCRIBE", "n:again");
  assert.equal(stream.reconnects, 0);
  const list = String(await one.redis.call("CLIENT", "LIST"));
  for (const line of list.split("\n").filter((text) => text.includes("name=n-again"))) {
    await one.redis.call("CLIENT", "KILL", "ID", Number(/^id=(\d+)/.exec(line)[1]));
  }
  await until(() => stream.reconnects === 1);
  await publish("n:again", "there");
  assert.equal(String((await stream.get(5))[2]), "there");
  await kernel.close();
  await assert.rejects(stream.get(1), Closed);
});

test("what is let go of is closed, unless somebody waits for it", { timeout: 30_000 }, async () => {
  let stream = await one.redis.subscribe("SUBSCRIBE", "n:forgotten");
  assert.equal(Number(await listeners("n:forgotten")), 1);
  stream = null;
  await until(async () => {
    await collect();
    return Number(await listeners("n:forgotten")) === 0;
  });
  const waiting = one.redis.subscribe("SUBSCRIBE", "n:kept").then((kept) => kept.get());
  await until(async () => Number(await listeners("n:kept")) === 1);
  await collect();
  await publish("n:kept", "still here");
  assert.equal(String((await waiting)[2]), "still here");
  assert.equal(stream, null);
});

test("a lease that is let go of is given back", async () => {
  let lease = await one.redis.lease();
  assert.equal((await one.redis.state()).leases, 1);
  lease = null;
  await until(async () => {
    await collect();
    return (await one.redis.state()).leases === 0;
  });
  assert.equal(lease, null);
});

test("how an endpoint is, and how it becomes", async () => {
  const kernel = new Kernel();
  const service = kernel.open("redis+app://watched", { role: "any" });
  const watch = await service.watch();
  assert.notEqual((await watch.get(5)).state, "up");
  await service.setPeers([one.url.replace("redis://", "")]);
  for await (const state of watch) if (state.state === "up") break;
  const all = await kernel.watch();
  assert.equal((await all.get(5)).endpoints.length, 1);
  all.close();
  await kernel.close();
});

test("an error of the peer is the request's", async () => {
  await assert.rejects(one.redis.call("SUBSCRIBE"), (error) => !(error instanceof RemoteError) || error.code !== "");
});
