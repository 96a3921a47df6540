"use strict";

/** Endpoints: services that requests go to. */

const { Closed, badRequest, errorFor } = require("./errors");
const { Lease, acquire } = require("./lease");
const { milliseconds, routeKey, shown } = require("./options");
const { Address } = require("./outbox");
const records = require("./records");
const { Requests } = require("./requests");
const { watch } = require("./subscription");
const { pack } = require("./values");

const { FLAG_ROUTE, OP_CLOSE, OP_OPEN, OP_PEERS, OP_STATE } = records;

class Endpoint extends Requests {
  /** Opened by `Kernel.open` and `attach`. */
  constructor(kernel, url, number) {
    super(kernel, new Address(number), 0);
    this._url = url;
    kernel.names.set(number, shown(url));
  }

  static open(kernel, url) {
    const { endpoint } = kernel.channel.askNow(OP_OPEN, new Address(0), Buffer.from(url));
    return new Endpoint(kernel, url, endpoint);
  }

  get url() {
    return shown(this._url);
  }

  get kernel() {
    return this._kernel;
  }

  get closed() {
    return this._to.number === 0;
  }

  _closedError() {
    return new Closed("the endpoint is closed", { status: -103, fate: "not_sent", endpoint: this.url });
  }

  _route(route) {
    return [FLAG_ROUTE, ...routeKey(route)];
  }

  async watch(options) {
    return watch(this._kernel, this._address().number, options);
  }

  /** A connection of one's own: for as long as `use` runs, or until `release()` where it is not given. */
  async lease(options, use) {
    if (typeof options === "function") return this.lease({}, options);
    const lease = await acquire(this, options);
    if (!use) return lease;
    try {
      return await use(lease);
    } finally {
      lease.release();
    }
  }

  async setPeers(peers) {
    if (!Array.isArray(peers)) throw badRequest(`peers: ${typeof peers}: expected an array`);
    await this._ask(OP_PEERS, pack(peers));
  }

  async waitReady(timeout) {
    await this._kernel.untilUp(this._address().number, milliseconds(timeout));
  }

  async state() {
    return this._ask(OP_STATE);
  }

  async close() {
    if (this.closed) return;
    const { number } = this._to;
    this._to.number = 0;
    if (this._kernel.closed) return;
    try {
      await this._kernel.channel.ask(OP_CLOSE, 0, new Address(number));
    } catch (error) {
      if (!(error instanceof Closed)) throw error;
    }
  }

  async [Symbol.asyncDispose]() {
    await this.close();
  }

  /** What `attach` makes an Endpoint of in another thread. */
  share() {
    return { kernel: this._kernel.share(), url: this._url, number: this._address().number };
  }

  async _ask(op, payload) {
    return this._kernel.channel.ask(op, 0, new Address(this._address().number), payload);
  }
}

module.exports = { Endpoint, Lease };
