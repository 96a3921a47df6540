"use strict";

/** Listeners: clients connect to us, and their requests come as records. */

const { Closed, IOKernelError, RemoteError } = require("./errors");
const { joined } = require("./inbox");
const { milliseconds, shown } = require("./options");
const { Address } = require("./outbox");
const { Request } = require("./request");
const records = require("./records");

const { KIND_DONE, KIND_GONE, KIND_REQUEST, OP_CLOSE, OP_LISTEN, OP_STATE } = records;

class Listener {
  /** Made by `Kernel.listen`. It has a channel of its own: what its handlers leave unread holds up nobody's replies. */
  constructor(kernel, url) {
    this._kernel = kernel;
    this._channel = kernel.openChannel();
    this._queue = [];
    this._waiting = [];
    this._live = new Map();
    this._closed = false;
    try {
      const done = this._channel.askNow(OP_LISTEN, new Address(0), Buffer.from(url));
      this._number = done.endpoint;
      this._url = done.value();
    } catch (error) {
      this._channel.close();
      throw error;
    }
    kernel.names.set(this._number, shown(this._url));
    this._channel.listener = this;
    this._channel.hold(1);
  }

  get url() {
    return this._url;
  }

  get closed() {
    return this._closed;
  }

  /** What the channel hands over. */
  completion(one) {
    if (one.kind === KIND_REQUEST) {
      const request = new Request(this, one.tag, one.tagHigh, one.peer, one.value());
      this._live.set(joined(one.tag, one.tagHigh), request);
      this._queue.push(request);
    } else if (one.kind === KIND_GONE) {
      this._live.get(joined(one.tag, one.tagHigh))?._lose();
      this._live.delete(joined(one.tag, one.tagHigh));
    } else if (one.kind === KIND_DONE) {
      if (this._channel.ended) this._end();
      else if (one.status) this._kernel.failed("a reply was not sent", one.error(this._kernel.names));
    }
    this._wake();
  }

  _wake() {
    for (const resolve of this._waiting.splice(0)) resolve();
  }

  /** Sends the one reply to a request. */
  _reply(request, value) {
    if (this._closed) {
      throw new Closed("the listener is closed", { status: -103, fate: "not_sent", endpoint: this._url });
    }
    this._channel.reply(new Address(this._number), request._tag, request._tagHigh, value);
    this._live.delete(joined(request._tag, request._tagHigh));
  }

  async next() {
    while (this._queue.length === 0) {
      if (this._closed) return { done: true, value: undefined };
      await new Promise((resolve) => this._waiting.push(resolve));
    }
    return { done: false, value: this._queue.shift() };
  }

  async return(value) {
    await this.close();
    return { done: true, value };
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** Gives every request to `handler`, side by side, until the listener is closed. */
  async serve(handler) {
    const running = new Set();
    for (;;) {
      const { done, value: request } = await this.next();
      if (done) break;
      const one = answer(this._kernel, handler, request).finally(() => running.delete(one));
      running.add(one);
    }
    await Promise.all(running);
  }

  async state() {
    return this._kernel.channel.ask(OP_STATE, 0, new Address(this._number));
  }

  async close({ drain, delay = 0 } = {}) {
    if (this._closed) return;
    if (drain === undefined) this._end();
    const to = new Address(this._number);
    if (drain !== undefined) {
      to.ms = milliseconds(Math.max(drain, 0.001));
      to.key = Math.round(delay * 1000);
    }
    try {
      if (!this._kernel.closed) await this._channel.ask(OP_CLOSE, 0, to);
    } catch (error) {
      if (!(error instanceof Closed)) this._kernel.failed("a listener was closed", error);
    }
    this._end();
    this._channel.close();
    this._kernel.forget(this._channel);
  }

  async [Symbol.asyncDispose]() {
    await this.close();
  }

  /** Nothing comes any more: who waits is told. */
  _end() {
    if (this._closed) return;
    this._closed = true;
    this._channel.hold(-1);
    for (const request of this._live.values()) request._lose();
    this._live.clear();
    this._wake();
  }
}

async function answer(kernel, handler, request) {
  try {
    const value = await handler(request);
    if (!request.gone) request.reply(value);
  } catch (error) {
    refuse(kernel, request, error);
  }
}

function refuse(kernel, request, error) {
  if (error instanceof Closed || request.gone) return;
  const remote = error instanceof RemoteError;
  if (!remote) kernel.failed("a request's handler failed", error);
  const [code, message] = remote ? [error.code || "ERR", error.message] : ["ERR", "the handler failed"];
  try {
    request.error(code, message);
  } catch (second) {
    if (!(second instanceof IOKernelError)) throw second;
  }
}

module.exports = { Listener };
