"use strict";

/** Leases: connections of one's own. */

const { badRequest, errorFor } = require("./errors");
const { milliseconds, routeKey } = require("./options");
const { Address } = require("./outbox");
const { FLAG_ROUTE, OP_LEASE, OP_RELEASE } = require("./records");
const { Requests } = require("./requests");

/** Gives back what the program has let go of without a word. */
const forgotten = new FinalizationRegistry(({ channel, number, key }) => giveBack(channel, number, key));

function giveBack(channel, number, [low, high]) {
  if (!channel.ended) channel.tell(OP_RELEASE, new Address(number, 0, low, high));
}

class Lease extends Requests {
  /** Made by `Endpoint.lease`. */
  constructor(endpoint, number, key) {
    super(endpoint.kernel, new Address(number, 0, ...key), 0);
    this._endpoint = endpoint;
    this._key = key;
    forgotten.register(this, { channel: this._channel, number, key }, this);
  }

  get endpoint() {
    return this._endpoint;
  }

  get released() {
    return this._to.number === 0;
  }

  _closedError() {
    return errorFor(-110, { fate: 1, endpoint: this._endpoint.url, text: "the lease was given back" });
  }

  _route() {
    throw badRequest("route: a lease is bound to its peer: expected none");
  }

  release() {
    const { number } = this._to;
    this._to.number = 0;
    if (!number) return;
    forgotten.unregister(this);
    giveBack(this._channel, number, this._key);
  }

  async [Symbol.asyncDispose]() {
    this.release();
  }
}

/** Asks for a connection of one's own. */
async function acquire(endpoint, { timeout, route, signal } = {}) {
  const { number } = endpoint._address();
  const [flags, key] = route === undefined ? [0, [0, 0]] : [FLAG_ROUTE, routeKey(route)];
  const to = new Address(number, milliseconds(timeout), ...key);
  const lease = BigInt(await endpoint.kernel.channel.ask(OP_LEASE, flags, to, undefined, signal));
  return new Lease(endpoint, number, [Number(lease & 0xffffffffn), Number(lease >> 32n)]);
}

module.exports = { Lease, acquire };
