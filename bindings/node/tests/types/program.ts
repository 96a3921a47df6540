import { Readable } from "node:stream";
import {
  Attributed,
  ConfigError,
  Endpoint,
  Extension,
  Fate,
  IOKernelError,
  Kernel,
  Listener,
  RemoteError,
  Request,
  Subscription,
  attach,
  counter,
  listen,
  marker,
  open,
} from "iokernel";

const cache: Endpoint = open("redis://cache", { heartbeat: "5s", maxInflight: 200, require: true });

async function requests(): Promise<void> {
  const value: Buffer | null = await cache.call("GET", "key");
  const count = await cache.call<number>("INCRBY", "count", 5n);
  await cache.call(["SET", "a", 1], ["GET", "a"]);
  await cache.call("SET", "key", new Uint8Array(5), "EX", 60);
  const quick = cache.with({ timeout: "250ms", idempotent: true, route: 7n, signal: AbortSignal.timeout(5) });
  const text: string = (await quick.call<Buffer>("GET", "key")).toString();
  if (!cache.send("INCR", "seen")) await cache.drained();
  console.log(value, count + 1, text, cache.callSync<string>("PING"));
}

async function errors(): Promise<void> {
  try {
    await cache.call("LPUSH", "key", "x");
  } catch (error) {
    if (error instanceof RemoteError && error.code === "WRONGTYPE") return;
    if (error instanceof ConfigError) console.log(error.key, error.expected);
    if (error instanceof IOKernelError) {
      const fate: Fate | null = error.fate;
      console.log(fate, error.statusName, error.peer, error.endpoint, error.retriable, error.cause);
    }
    throw error;
  }
}

async function streams(): Promise<void> {
  const news: Subscription<[string, Buffer, Buffer]> = await cache.with({ buffer: 10 }).subscribe("SUBSCRIBE", "news");
  for await (const [kind, channel, message] of news) console.log(kind, channel.length, message.toString(), news.lost);
  Readable.from(news);
  const [first] = await news.get(5);
  console.log(first);
  for await (const state of await cache.watch()) console.log(state.state);
}

async function leases(): Promise<number> {
  const lease = await cache.lease({ timeout: 1 });
  lease.release();
  return cache.lease({ route: 5 }, async (conn) => {
    await conn.call("WATCH", "key");
    return 5;
  });
}

async function serving(): Promise<void> {
  const listener: Listener = listen("http://127.0.0.1:0");
  await listener.serve(async (request: Request) => [200, {}, request.args[0][1]]);
  for await (const request of listener) request.error("ERR", "no");
  await listener.close({ drain: 5, delay: 1 });
}

async function observing(): Promise<void> {
  const kernel = new Kernel({ name: "web-1", admin: "auto", busyLimit: "30s", channel: { ring: "4MiB" } });
  kernel.counter("orders", { help: "Orders.", shop: "north" }).inc();
  const total: bigint = counter("orders").value;
  kernel.gauge("depth", { merge: "max" }).set(5);
  const timed: Promise<number> = kernel.histogram("took", { buckets: [1, 2] }).time(async () => 5);
  const marked: number = marker("render", { id: 7 }, () => 5);
  const { ready, missing } = await kernel.state();
  console.log(total, await timed, marked, ready, missing.length);
  const again: Endpoint = attach(cache.share());
  const same: Kernel = attach<Kernel>(kernel.share());
  await kernel.echo([1n, new Set(["a"]), new Map([["b", 1]]), new Extension(20, Buffer.alloc(1)), new Attributed(1)]);
  await Promise.all([again.close(), same.close({ drain: 1 })]);
}

console.log(requests, errors, streams, leases, serving, observing);
