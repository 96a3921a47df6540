"use strict";

/** What endpoints and leases have in common: requests. */

const { milliseconds } = require("./options");
const { Address } = require("./outbox");
const { FLAG_IDEMPOTENT } = require("./records");
const markers = require("./marker");
const { subscribe } = require("./subscription");

class Requests {
  constructor(kernel, to, flags) {
    this._kernel = kernel;
    this._channel = kernel.channel;
    this._to = to;
    this._flags = flags;
    this._signal = undefined;
    this._buffer = undefined;
  }

  /** One request; a promise of its reply. */
  call(...args) {
    try {
      return this._channel.request(this._flags, this._address(), args, this._signal);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** One request; this thread does nothing else until its reply is there. */
  callSync(...args) {
    return this._channel.requestNow(this._flags, this._address(), args);
  }

  /** One request whose reply nobody waits for. */
  send(...args) {
    return this._channel.send(this._flags, this._address(), args);
  }

  /** A request that keeps giving. Resolves to a Subscription when it stands. */
  async subscribe(...request) {
    return subscribe(this._kernel, this._address(), request, { buffer: this._buffer, signal: this._signal });
  }

  /** A promise of when what `send` was given is with the kernel. */
  drained() {
    return this._channel.drained();
  }

  /** The same with other options: `timeout`, `idempotent`, `route`, `signal`, `buffer`. */
  with(options) {
    return new View(this, options);
  }

  _address() {
    const to = this._to;
    if (to.number === 0) throw this._closedError();
    to.marker = markers.current(this._kernel);
    return to;
  }
}

/** An endpoint or a lease, with options for its requests. */
class View extends Requests {
  constructor(of, { timeout, idempotent, route, signal, buffer }) {
    const { number, ms, key, keyHigh } = of._to;
    const [routeFlag, ...routed] = route === undefined ? [0, key, keyHigh] : of._route(route);
    const time = timeout === undefined ? ms : milliseconds(timeout);
    const kept = idempotent === undefined ? of._flags : of._flags & ~FLAG_IDEMPOTENT;
    super(of._kernel, new Address(number, time, ...routed), kept | (idempotent ? FLAG_IDEMPOTENT : 0) | routeFlag);
    this._of = of;
    this._signal = signal ?? of._signal;
    this._buffer = buffer ?? of._buffer;
  }

  _route(route) {
    return this._of._route(route);
  }

  _address() {
    this._to.marker = this._of._address().marker;
    return this._to;
  }
}

module.exports = { Requests };
