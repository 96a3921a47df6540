"use strict";

/** Subscriptions: requests that keep giving. */

const { Waiter, cancelled } = require("./channel");
const { Closed, Timeout, badRequest } = require("./errors");
const { milliseconds } = require("./options");
const { Address } = require("./outbox");
const { KIND_ACCEPTED, KIND_DONE, KIND_LOST, OP_STREAM, OP_WATCH, TIMEOUT_NONE } = require("./records");
const { pack } = require("./values");

/** Ends what the program has let go of without a word. */
const forgotten = new FinalizationRegistry(({ channel, waiter }) => channel.cancel(waiter));

/** What the channel holds: a subscription that nobody else holds any more can be collected, unless somebody waits. */
class Sink {
  constructor(subscription) {
    this._weak = new WeakRef(subscription);
    this.strong = subscription;
  }

  completion(one) {
    this._weak.deref()?._completion(one);
  }
}

/** Ends a subscription whose signal says so; the signal may outlive it. */
const abortOf = (weak) => () => weak.deref()?.close();

class Subscription {
  /** Made by `Endpoint.subscribe`. */
  constructor(kernel, { buffer = 65536, signal }) {
    if (!(buffer > 0)) throw badRequest(`buffer: ${buffer}: expected how many messages may wait`);
    this.lost = 0;
    this.reconnects = -1;
    this._buffer = buffer;
    this._messages = [];
    this._first = 0;
    this._waiting = [];
    this._closed = false;
    this._error = null;
    this._signal = signal;
    this._abort = signal && abortOf(new WeakRef(this));
    this._channel = kernel.channel;
    this._names = kernel.names;
    this._sink = new Sink(this);
    this._waiter = new Waiter(null, null, this._sink);
  }

  /** Begins it. Resolves to it when it stands. */
  async _begin(op, to, payload) {
    if (this._signal?.aborted) throw cancelled(this._signal, 1);
    this._channel.submit(op, 0, to, payload, this._waiter);
    this._signal?.addEventListener("abort", this._abort, { once: true });
    forgotten.register(this, { channel: this._channel, waiter: this._waiter }, this);
    await new Promise((resolve) => this._wait(resolve));
    if (this._error) throw this._error;
    if (this._signal?.aborted) throw cancelled(this._signal, 2);
    this.reconnects = Math.max(this.reconnects, 0);
    return this;
  }

  _completion(one) {
    if (one.kind === KIND_ACCEPTED) {
      this.reconnects++;
      if (this.reconnects > 0) return;
    } else if (one.kind === KIND_LOST) {
      this.lost += Number(one.value());
      return;
    } else if (one.kind === KIND_DONE) {
      if (one.status && !this._closed) this._error = one.error(this._names);
      this._over();
    } else if (!this._closed) {
      this._push(one.value());
    }
    this._wake();
  }

  _push(message) {
    if (this._count < this._buffer) this._messages.push(message);
    else this.lost++;
  }

  get _count() {
    return this._messages.length - this._first;
  }

  /** The message that came first. */
  _shift() {
    const message = this._messages[this._first];
    this._messages[this._first++] = undefined;
    if (this._first === this._messages.length) {
      this._messages = [];
      this._first = 0;
    }
    return message;
  }

  _over() {
    this._closed = true;
    forgotten.unregister(this);
    this._signal?.removeEventListener("abort", this._abort);
  }

  _wait(resolve) {
    this._waiting.push(resolve);
    this._sink.strong = this;
  }

  _wake() {
    const waiting = this._waiting;
    this._sink.strong = null;
    if (waiting.length === 0) return;
    this._waiting = [];
    for (const resolve of waiting) resolve();
  }

  /** Resolves when there is something to look at, or `timeout` is over: then to false. */
  async _news(ms) {
    if (ms === 0) return new Promise((resolve) => this._wait(() => resolve(true)));
    let timer;
    const over = new Promise((resolve) => {
      timer = setTimeout(resolve, ms, false);
    });
    const news = new Promise((resolve) => this._wait(() => resolve(true)));
    try {
      return await Promise.race([news, over]);
    } finally {
      clearTimeout(timer);
    }
  }

  async get(timeout) {
    const ms = timeout === undefined ? 0 : milliseconds(timeout);
    const deadline = ms === 0 || ms === TIMEOUT_NONE ? Infinity : Date.now() + ms;
    while (this._count === 0) {
      if (this._error) throw this._error;
      if (this._closed) throw new Closed("the subscription has ended", { status: -103 });
      const left = deadline === Infinity ? 0 : Math.max(deadline - Date.now(), 1);
      if (!(await this._news(left)) && Date.now() >= deadline && this._count === 0) {
        throw new Timeout(`no message within ${ms} ms`, { status: -202 });
      }
    }
    return this._shift();
  }

  async next() {
    while (this._count === 0) {
      if (this._error) throw this._error;
      if (this._closed) return { done: true, value: undefined };
      await this._news(0);
    }
    return { done: false, value: this._shift() };
  }

  async return(value) {
    this.close();
    return { done: true, value };
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  close() {
    if (this._closed) return;
    this._over();
    this._channel.cancel(this._waiter);
    this._wake();
  }

  get closed() {
    return this._closed;
  }

  async [Symbol.asyncDispose]() {
    this.close();
  }
}

/** How an endpoint, or a kernel, is: at once, and after each change. Of too many, the oldest go first. */
class Watch extends Subscription {
  _push(message) {
    if (this._count >= this._buffer) {
      this._shift();
      this.lost++;
    }
    this._messages.push(message);
  }
}

function subscribe(kernel, to, request, options) {
  return new Subscription(kernel, options)._begin(OP_STREAM, to, pack(request));
}

function watch(kernel, number, { buffer = 1024, signal } = {}) {
  return new Watch(kernel, { buffer, signal })._begin(OP_WATCH, new Address(number));
}

module.exports = { Subscription, Watch, subscribe, watch };
