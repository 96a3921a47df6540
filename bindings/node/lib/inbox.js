"use strict";

/**
 * Completions, copied out of the ring in runs. Bytes of replies are views of that copy; where none was lent, its memory
 * is used again.
 */

const { addon } = require("./library");
const { errorFor, withoutStack } = require("./errors");
const { decode } = require("./values");
const { COMPLETION_BYTES, FLAG_MORE, KIND_TICK } = require("./records");

const SLAB_BYTES = 64 << 10;
/** Both halves of a tag as one key. */
const joined = (low, high) => (BigInt(high) << 32n) | BigInt(low);

/** One completion, its payload whole. */
class Completion {
  constructor(kind, endpoint, status, tag, tagHigh, peer, fate, encoding, data, start, end) {
    this.kind = kind;
    this.endpoint = endpoint;
    this.status = status;
    this.tag = tag;
    this.tagHigh = tagHigh;
    this.peer = peer;
    this.fate = fate;
    this.encoding = encoding;
    this.data = data;
    this.start = start;
    this.end = end;
  }

  value() {
    return decode(this.encoding, this.data, this.start, this.end);
  }

  error(names) {
    let said = null;
    try {
      said = this.value();
    } catch {
      said = null; // The status has a text of its own.
    }
    const about = { fate: this.fate, endpoint: names.get(this.endpoint), peer: this.peer, said };
    return withoutStack(() => errorFor(this.status, about));
  }
}

class Inbox {
  constructor(handle) {
    this._handle = handle;
    this._parts = new Map();
    /** Whether messages are under way of which a part is missing. */
    this.hasParts = false;
    this._renew(SLAB_BYTES);
  }

  _renew(size) {
    this.slab = Buffer.allocUnsafeSlow(size);
    this.words = new Uint32Array(this.slab.buffer);
    this.position = 0;
    /** Whether a value of the program's shares this memory. */
    this.lent = false;
  }

  /** Copies the next run to `slab` at `position`. Its bytes; 0: there is none; below 0: the channel has ended. */
  drain() {
    const size = addon.drain(this._handle, this.slab, this.position);
    return size < -1 ? this._drainLarge(-size) : size;
  }

  _drainLarge(needed) {
    if (!this.lent && needed <= this.slab.length) this.position = 0;
    else this._renew(Math.max(SLAB_BYTES, needed));
    return addon.drain(this._handle, this.slab, this.position);
  }

  /** The record at a word of the slab, or null where it is but a part of a message, or nothing. */
  completion(word) {
    const { words } = this;
    const size = words[word];
    const [kind, flags] = [words[word + 1] & 0xffff, words[word + 1] >>> 16];
    if (kind === KIND_TICK) return null;
    const about = words[word + 7];
    const one = new Completion(
      kind,
      words[word + 2],
      words[word + 3] | 0,
      words[word + 4],
      words[word + 5],
      words[word + 6],
      about & 0xff,
      (about >>> 8) & 0xff,
      this.slab,
      word * 4 + COMPLETION_BYTES,
      word * 4 + size,
    );
    if (flags & FLAG_MORE || this.hasParts) return this._whole(one, flags, words[word + 8]);
    this.lent = true;
    return one;
  }

  /** Gathers the parts of a message. Null until it is whole. */
  _whole(one, flags, total) {
    const key = joined(one.tag, one.tagHigh);
    let message = this._parts.get(key);
    if (!message) {
      if (!(flags & FLAG_MORE)) {
        this.lent = true;
        return one;
      }
      message = { data: Buffer.allocUnsafeSlow(total), filled: 0 };
      this._parts.set(key, message);
      this.hasParts = true;
    }
    message.filled += one.data.copy(message.data, message.filled, one.start, one.end);
    if (flags & FLAG_MORE) return null;
    this._parts.delete(key);
    this.hasParts = this._parts.size > 0;
    [one.data, one.start, one.end] = [message.data, 0, message.filled];
    return one;
  }
}

module.exports = { Completion, Inbox, joined };
