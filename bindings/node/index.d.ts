/** All the networking of a program in one I/O thread that its interpreter cannot stall. */

/** Seconds, or text with its unit: `"250ms"`, `"5s"`, `"2m"`, `"1h"`. `Infinity`: no limit. */
export type Duration = number | string;

/** What is given as an argument, or as a reply of a listener. */
export type Given =
  | null
  | undefined
  | boolean
  | number
  | bigint
  | string
  | ArrayBufferView
  | ArrayBuffer
  | Set<unknown>
  | Map<unknown, unknown>
  | RemoteError
  | Attributed
  | Extension
  | readonly unknown[]
  | { readonly [key: string]: unknown };

/** Options of a URL's query, in camelCase or snake_case: `{ heartbeat: "5s", maxInflight: 200 }`. */
export interface Options {
  [name: string]: string | number | bigint | boolean | null | undefined;
}

export type Fate = "not_sent" | "maybe_executed" | "replied";

// Errors

/** Any error of iokernel. */
export class IOKernelError extends Error {
  constructor(
    message: string,
    fields?: { code?: string; status?: number; fate?: Fate | null; endpoint?: string | null; peer?: number | null },
  );
  /** A word for programs, such as `"WRONGTYPE"`; empty if there is none. */
  code: string;
  /** The number of the status, below 0; 0 where there was none. */
  status: number;
  /** What is known of the request: `"not_sent"` means that sending it again is safe. Null where no request was. */
  fate: Fate | null;
  /** The endpoint's URL without its secrets. */
  endpoint: string | null;
  /** The number of the connection. */
  peer: number | null;
  /** The name of the status, such as `"TIMEOUT"`. */
  readonly statusName: string;
  /** Whether the same request may succeed later. Whether it may be sent again, its fate says. */
  readonly retriable: boolean;
}

/** The peer answered with an error. Inside a reply (a batch, a transaction) it is an element, not thrown. */
export class RemoteError extends IOKernelError {}
/** The deadline passed; the fate says whether the request may have been executed. */
export class Timeout extends IOKernelError {}
/** No connection could be made, or the peer refused it (user, password, database). */
export class Unavailable extends IOKernelError {}
/** The connection was lost before the reply, or its peer broke the protocol. */
export class ConnectionLost extends IOKernelError {}
/** A limit of the endpoint or the channel was reached. */
export class Overloaded extends IOKernelError {}
/** Ended by the program's AbortSignal, whose reason is `cause`. */
export class Cancelled extends IOKernelError {}
/** The request is not one of the endpoint's protocol, or too large. */
export class BadRequest extends IOKernelError {}
/** A URL or option is wrong. */
export class ConfigError extends BadRequest {
  readonly key: string | null;
  readonly value: string | null;
  readonly expected: string | null;
}
/** The kernel, endpoint, listener or lease is closed. */
export class Closed extends IOKernelError {}

// Values

/** A value that came with attributes (`attributes: true`). */
export class Attributed {
  constructor(value: unknown, attributes?: unknown);
  value: unknown;
  attributes: unknown;
}

/** A value that MessagePack has no type for, as the protocol's page describes it. `type`: 0 to 127. */
export class Extension {
  constructor(type: number, data: Uint8Array);
  type: number;
  data: Buffer;
}

// Requests

export interface RequestOptions {
  /** For each request. Undefined: the endpoint's own (`timeout=30s`). */
  timeout?: Duration;
  /** It may be sent again when its fate is in doubt. */
  idempotent?: boolean;
  /** Requests of one route go to one peer, for as long as the peers stay the same. An integer of 64 bits. */
  route?: number | bigint;
  /** Cancels: what is under way then rejects with Cancelled, unless its reply came first. Ends subscriptions. */
  signal?: AbortSignal;
}

export interface StreamOptions extends RequestOptions {
  /** Messages of a subscription that may wait unread; more are dropped and counted in `lost`. 65536. */
  buffer?: number;
}

/** What endpoints and leases have in common. */
export interface Requests {
  /**
   * One request: `call("GET", "key")`. Text comes as string, bytes as Buffer, integers beyond 2^53 as bigint. Arrays as
   * arguments are a batch, sent at once and answered by one array: `call(["SET", "a", 1], ["GET", "a"])`; errors in it
   * are RemoteError elements. Rejects with an IOKernelError that has a `fate`.
   */
  call<T = any>(...args: Given[]): Promise<T>;
  /** `call` for scripts: this thread does nothing else until the reply is there. A signal has no effect. */
  callSync<T = any>(...args: Given[]): T;
  /**
   * One request whose reply nobody waits for; a failure becomes a warning of the process. False: more than 4 MiB wait
   * to be sent, and the program should wait for `drained()`. Throws BadRequest and Closed.
   */
  send(...args: Given[]): boolean;
  /** Resolves when everything sent so far is with the kernel. */
  drained(): Promise<void>;
  /** The same with options for its requests: `with({ timeout: 0.1 }).call("GET", "key")`. May be kept and reused. */
  with(options: RequestOptions): Requests;
}

/** Requests of an endpoint: those that keep giving, too. */
export interface Streams extends Requests {
  /**
   * A request that keeps giving: `await subscribe("SUBSCRIBE", "news")`. Resolves when it stands, rejects if the peer
   * refuses it.
   */
  subscribe<T = any>(...request: Given[]): Promise<Subscription<T>>;
  with(options: StreamOptions): Streams;
}

/** A service, alive in the background from `open` until `close()`. */
export class Endpoint implements Streams {
  private constructor();
  call<T = any>(...args: Given[]): Promise<T>;
  callSync<T = any>(...args: Given[]): T;
  send(...args: Given[]): boolean;
  drained(): Promise<void>;
  with(options: StreamOptions): Streams;
  /** Its URL without password and options. */
  readonly url: string;
  readonly kernel: Kernel;
  readonly closed: boolean;
  subscribe<T = any>(...request: Given[]): Promise<Subscription<T>>;
  /** How it is, as `state()` has it: at once, and after each change of its state, its peers or their roles. */
  watch(options?: { buffer?: number; signal?: AbortSignal }): Promise<Subscription<State>>;
  /** A connection of one's own, given back when what `use` returns is settled. */
  lease<T>(use: (lease: Lease) => T | Promise<T>): Promise<T>;
  lease<T>(options: LeaseOptions, use: (lease: Lease) => T | Promise<T>): Promise<T>;
  /** A connection of one's own, until its `release()`; also for `await using`. */
  lease(options?: LeaseOptions): Promise<Lease>;
  /** Tells the peers of an endpoint opened as `scheme+app://label`: the whole set, each time. */
  setPeers(
    peers: (string | { address: string; weight?: number; priority?: number; role?: "primary" | "replica" })[],
  ): Promise<void>;
  /** Resolves when it is up. Rejects with Unavailable after `timeout` (undefined: the endpoint's own). */
  waitReady(timeout?: Duration): Promise<void>;
  /** How it is: `state` (`"up"`, `"degraded"`, `"connecting"`, `"down"`), `conns`, `queued`, `peers`, ... */
  state(): Promise<State>;
  /** Closes it; what is under way fails with Closed. Twice is harmless. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
  /** What `attach` in another thread of this process makes the same endpoint of; for `workerData` and messages. */
  share(): Shared;
}

export interface LeaseOptions {
  /** For getting the connection. */
  timeout?: Duration;
  /** To the peer that requests of this route go to. */
  route?: number | bigint;
  signal?: AbortSignal;
}

export interface State {
  state: string;
  [key: string]: any;
}

/** A connection of one's own. Given back clean: what it had under way is cancelled. */
export class Lease implements Requests {
  private constructor();
  call<T = any>(...args: Given[]): Promise<T>;
  callSync<T = any>(...args: Given[]): T;
  send(...args: Given[]): boolean;
  drained(): Promise<void>;
  with(options: RequestOptions): Requests;
  readonly endpoint: Endpoint;
  readonly released: boolean;
  /** Gives the connection back. Twice is harmless. */
  release(): void;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Messages as they come, until `close()` or the end of the loop that iterates. It outlives lost connections: what was
 * sent meanwhile is not delivered.
 */
export class Subscription<T = any> implements AsyncIterableIterator<T> {
  protected constructor();
  /** Messages that were dropped because the program left too many unread. */
  lost: number;
  /** How often its connection was made again. */
  reconnects: number;
  readonly closed: boolean;
  /** The next message. Rejects with Timeout; after the end with what ended it, or Closed. */
  get(timeout?: Duration): Promise<T>;
  next(): Promise<IteratorResult<T>>;
  return(value?: unknown): Promise<IteratorResult<T>>;
  [Symbol.asyncIterator](): this;
  /** Ends it. Messages that came before can still be taken. Twice is harmless. */
  close(): void;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A Subscription to states; of too many that are unread, the oldest go first. */
export class Watch extends Subscription<State> {}

// Listeners

export interface ListenerCloseOptions {
  /** Seconds that what is under way has to finish; undefined: none, every client is dropped. */
  drain?: number;
  /** Seconds before nobody is let in any more, with `drain`. */
  delay?: number;
}

/** Where clients connect. Iterate over it, or let `serve` do it. */
export class Listener implements AsyncIterableIterator<Request> {
  private constructor();
  /** Where it listens, with the port that the system chose. */
  readonly url: string;
  readonly closed: boolean;
  /**
   * Gives every request to `handler`, side by side, until the listener is closed. What the handler returns is the
   * reply; a RemoteError it throws is the client's error; anything else thrown is a warning, and `ERR` for the client.
   */
  serve(handler: (request: Request) => Given | void | Promise<Given | void>): Promise<void>;
  next(): Promise<IteratorResult<Request>>;
  return(value?: unknown): Promise<IteratorResult<Request>>;
  [Symbol.asyncIterator](): this;
  state(): Promise<State>;
  /** Stops listening and drops its clients, or with `drain` lets them finish. Twice is harmless. */
  close(options?: ListenerCloseOptions): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A client's request. Exactly one of `reply` and `error`. */
export class Request {
  private constructor();
  /** What the client asked, as the protocol's page describes it. */
  readonly args: any;
  /** The number of the client's connection. */
  readonly peer: number;
  /** Whether nobody waits for a reply any more: it was given, or the client has left. */
  readonly gone: boolean;
  /** Answers. Throws BadRequest for a value that cannot be carried, Closed after the listener's end. */
  reply(value: Given): void;
  error(code: string, message: string): void;
}

// Kernels

export interface SeriesOptions {
  help?: string;
  unit?: string;
  labels?: Record<string, unknown>;
  /** A gauge's: how those of several processes make one. */
  merge?: "sum" | "max" | "min";
  /** A histogram's upper bounds, growing, 128 at most. */
  buckets?: number[];
  /** Any other name is a label. */
  [label: string]: unknown;
}

export interface KernelOptions extends Omit<Options, "channel"> {
  /** The I/O thread's name, at most 15 bytes. */
  name?: string;
  /** Where it can be asked: `unix:/path`, `127.0.0.1:9901`, or `auto`. */
  admin?: string;
  /** Whether `/stack` may ask this process's threads where they are, by a signal. On where `admin` is given. */
  stack?: boolean;
  /** Of its channels: `ring`, `credits`, `pushBuffer`, `replyBuffer`, `maxRequest`. */
  channel?: any;
  [name: string]: any;
}

/** Stands for a kernel or an endpoint of another thread of this process. */
export interface Shared {
  readonly [key: string]: unknown;
}

/** An I/O thread with everything it owns. It lives until `close()`, or the end of the thread that made it. */
export class Kernel {
  /** Throws ConfigError for options that the library does not know. */
  constructor(options?: KernelOptions);
  readonly closed: boolean;
  /** See `open`. */
  open(url: string, options?: Options): Endpoint;
  /** See `listen`. */
  listen(url: string, options?: Options): Listener;
  /** Counts whole numbers. The same name and labels are the same cell. Throws ConfigError, Overloaded. */
  counter(name: string, options?: SeriesOptions): Counter;
  /** Adds up what is no whole number, such as seconds. */
  sum(name: string, options?: SeriesOptions): Sum;
  /** What goes up and down. */
  gauge(name: string, options?: SeriesOptions): Gauge;
  /** How values are distributed. */
  histogram(name: string, options?: SeriesOptions): Histogram;
  /**
   * Runs `work`; until what it returns is settled, `render invoice id=7` (56 bytes at most) is shown to whoever asks,
   * and with each request made inside, also after an `await`.
   */
  marker<T>(text: string, work: () => T): T;
  marker<T>(text: string, fields: Record<string, unknown>, work: () => T): T;
  /** The value, from the I/O thread and back. */
  echo<T = any>(value: Given): Promise<T>;
  /** How it is: `ready`, `missing`, `endpoints`. */
  state(): Promise<{ ready: boolean; missing: string[]; endpoints: State[]; [key: string]: any }>;
  /** `state()` at once, and after each change. */
  watch(options?: { buffer?: number; signal?: AbortSignal }): Promise<Subscription<any>>;
  /** Resolves when every endpoint opened with `require: true` is up. Undefined: waits as long as it takes. */
  waitReady(timeout?: Duration): Promise<void>;
  /** What `attach` in another thread of this process makes the same kernel of. */
  share(): Shared;
  /** Closes every endpoint and ends the I/O thread; requests under way may finish for `drain` seconds. */
  close(options?: { drain?: number }): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** `inc` throws RangeError for what is no whole number from 0 on. */
export class Counter {
  private constructor();
  readonly name: string;
  inc(n?: number): void;
  /** This process's part; it begins at any number. */
  readonly value: bigint;
}

export class Sum {
  private constructor();
  readonly name: string;
  inc(n?: number): void;
  readonly value: number;
}

export class Gauge {
  private constructor();
  readonly name: string;
  set(value: number): void;
  inc(n?: number): void;
  dec(n?: number): void;
  readonly value: number;
}

export class Histogram {
  private constructor();
  readonly name: string;
  readonly buckets: number[];
  observe(value: number): void;
  /** Observes how long `work` takes, in seconds; of a promise, until it is settled. */
  time<T>(work: () => T): T;
}

// The default kernel of this thread, started at the first use

/**
 * Opens a service and returns at once; names, connections, heartbeats live from here on. Throws ConfigError (`key`,
 * `value`, `expected`) for a URL or an option that is wrong; that the peer cannot be reached is seen by requests,
 * `waitReady` and `state`.
 */
export function open(url: string, options?: Options): Endpoint;
/** Listens: `listen("http://127.0.0.1:0")`. Throws ConfigError, or IOKernelError if the system refuses the address. */
export function listen(url: string, options?: Options): Listener;
export function counter(name: string, options?: SeriesOptions): Counter;
export function sum(name: string, options?: SeriesOptions): Sum;
export function gauge(name: string, options?: SeriesOptions): Gauge;
export function histogram(name: string, options?: SeriesOptions): Histogram;
export function marker<T>(text: string, work: () => T): T;
export function marker<T>(text: string, fields: Record<string, unknown>, work: () => T): T;
/** The kernel of these functions. The environment variable IOKERNEL_ADMIN gives it an admin endpoint. */
export function defaultKernel(): Kernel;
/** A kernel or an endpoint of another thread of this process, with a channel of this thread's own. */
export function attach(shared: Shared): Endpoint;
export function attach<T extends Kernel | Endpoint>(shared: Shared): T;
