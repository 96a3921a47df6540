"use strict";

/** Kernels: an I/O thread each, with this thread's channels to it. */

const { addon } = require("./library");
const cells = require("./cells");
const { Channel, opened } = require("./channel");
const { Endpoint } = require("./endpoint");
const { Closed, Unavailable, check, errorFor } = require("./errors");
const { Listener } = require("./listener");
const markers = require("./marker");
const { milliseconds, query, withOptions } = require("./options");
const { Address } = require("./outbox");
const { FLAG_UNTIL_UP, OP_ECHO, OP_STATE, TIMEOUT_NONE } = require("./records");
const { watch } = require("./subscription");
const { pack, unpack } = require("./values");

const CLOSED = -103;
const BAD_HANDLE = -102;
const DRAIN_MAX_MS = 0x7fffffff;
/** What is under way when the program ends may finish for a moment. */
const EXIT_DRAIN_MS = 200;

/** The kernels of this thread that are open. */
const open = new Set();

process.on("exit", () => {
  for (const kernel of open) kernel._exit();
});

class Kernel {
  constructor({ stack, channel = {}, ...config } = {}) {
    const handle = opened(addon.kernelOpen(query(config)));
    const shared = { handle, channel, area: String(config.metrics ?? ""), stack: Boolean(stack ?? config.admin) };
    this._begin(shared, true);
    if (this._stack) addon.stackOpen(handle);
  }

  /** The same kernel in another thread, with a channel of that thread's own. */
  static _attach(shared) {
    const kernel = Object.create(Kernel.prototype);
    kernel._begin(shared, false);
    return kernel;
  }

  _begin(shared, isOwner) {
    this._shared = shared;
    this._isOwner = isOwner;
    this._stack = isOwner && shared.stack;
    this._closing = null;
    this._channels = new Set();
    this.handle = shared.handle;
    this.area = shared.area;
    /** URLs of endpoints by their numbers. */
    this.names = new Map();
    this.channel = this.openChannel();
    open.add(this);
  }

  // For the other files of the binding

  openChannel() {
    const channel = new Channel(this.handle, this._shared.channel, this.names);
    channel.onFailure = (error) => this.failed("a one-way request failed", error);
    this._channels.add(channel);
    return channel;
  }

  forget(channel) {
    this._channels.delete(channel);
  }

  /** Something went wrong of which nobody hears otherwise. */
  failed(what, error) {
    process.emitWarning(`${what}: ${error?.message ?? error}`, {
      type: "IOKernelWarning",
      code: String(error?.code || error?.statusName || ""),
      detail: error?.stack,
    });
  }

  /** Resolves when an endpoint is up; 0: every one that must be. */
  async untilUp(number, ms) {
    try {
      await this.channel.ask(OP_STATE, FLAG_UNTIL_UP, new Address(number, ms));
    } catch (error) {
      if (error.status !== -202) throw error;
      const { code, endpoint } = error;
      throw new Unavailable(error.message, { code, status: -303, fate: "not_sent", endpoint });
    }
  }

  // The surface

  open(url, options) {
    this._mustBeOpen();
    return Endpoint.open(this, withOptions(url, options));
  }

  listen(url, options) {
    this._mustBeOpen();
    return new Listener(this, withOptions(url, options));
  }

  counter(name, options) {
    return this._series("counter", name, options);
  }

  sum(name, options) {
    return this._series("sum", name, options);
  }

  gauge(name, options) {
    return this._series("gauge", name, options);
  }

  histogram(name, options) {
    return this._series("histogram", name, options);
  }

  marker(text, fields, work) {
    if (typeof fields === "function") return this.marker(text, {}, fields);
    this._mustBeOpen();
    return markers.run(this, text, fields, work);
  }

  async echo(value) {
    this._mustBeOpen();
    return unpack(await this.channel.ask(OP_ECHO, 0, new Address(0), pack(value)));
  }

  async state() {
    this._mustBeOpen();
    return this.channel.ask(OP_STATE, 0, new Address(0));
  }

  async watch(options) {
    this._mustBeOpen();
    return watch(this, 0, options);
  }

  async waitReady(timeout) {
    this._mustBeOpen();
    await this.untilUp(0, timeout === undefined ? TIMEOUT_NONE : milliseconds(timeout));
  }

  share() {
    this._mustBeOpen();
    return this._shared;
  }

  close({ drain = 0 } = {}) {
    this._closing ??= this._close(Math.min(Math.round(drain * 1000), DRAIN_MAX_MS));
    return this._closing;
  }

  get closed() {
    return this._closing !== null;
  }

  async [Symbol.asyncDispose]() {
    await this.close();
  }

  _series(kind, name, options) {
    this._mustBeOpen();
    return cells.make(this, kind, name, options);
  }

  _mustBeOpen() {
    if (this.closed) throw new Closed("the kernel is closed", { status: CLOSED, fate: "not_sent" });
  }

  async _close(drainMs) {
    open.delete(this);
    for (const channel of this._channels) channel.flush();
    let status = 0;
    if (this._stack) addon.stackClose(this.handle);
    if (this._isOwner) status = await addon.kernelClose(this.handle, drainMs);
    this._closeChannels();
    if (status !== BAD_HANDLE) check(status);
  }

  _closeChannels() {
    for (const channel of this._channels) channel.close();
    this._channels.clear();
  }

  /** The program ends; no loop runs any more. */
  _exit() {
    this._closing = Promise.resolve();
    for (const channel of this._channels) channel.flush();
    if (this._isOwner) addon.kernelCloseNow(this.handle, EXIT_DRAIN_MS);
    this._closeChannels();
  }
}

/** A kernel or an endpoint of another thread, by what its `share()` gave. */
function attach(shared) {
  if (typeof shared?.handle === "bigint") return Kernel._attach(shared);
  if (typeof shared?.kernel?.handle === "bigint") {
    return new Endpoint(Kernel._attach(shared.kernel), shared.url, shared.number);
  }
  throw errorFor(-107, { fate: 1, text: "attach: expected what `share()` gave" });
}

let standard = null;

/** The kernel of `open` and `listen`, started at their first call. `IOKERNEL_ADMIN` gives it an admin endpoint. */
function defaultKernel() {
  if (standard === null || standard.closed) {
    standard = new Kernel({ name: "iokernel", admin: process.env.IOKERNEL_ADMIN || undefined });
  }
  return standard;
}

module.exports = { Kernel, attach, defaultKernel };
