"use strict";

/** A client's request at one of our listeners. */

const { RemoteError } = require("./errors");

class Request {
  constructor(listener, tag, tagHigh, peer, args) {
    this.args = args;
    this.peer = peer;
    this._listener = listener;
    this._tag = tag;
    this._tagHigh = tagHigh;
    this._settled = false;
  }

  get gone() {
    return this._settled;
  }

  reply(value) {
    if (this._settled) return;
    this._listener._reply(this, value);
    this._settled = true;
  }

  error(code, message) {
    this.reply(new RemoteError(message, { code }));
  }

  /** The client has left, or the listener was closed. */
  _lose() {
    this._settled = true;
  }
}

module.exports = { Request };
