"use strict";

/**
 * The submissions of one turn, written one behind the other into one piece of memory and given to the kernel with one
 * call. What the ring has no room for stays, in its order.
 */

const { REUSE_BUFFER_MODE, RESERVE_START_SPACE } = require("./msgpack");
const { addon } = require("./library");
const { packr, writer } = require("./values");
const records = require("./records");

const { FLAG_MORE, FULL, OK, SUBMISSION_BYTES } = records;
/** The packer leaves room for the head in front of the payload, and begins each at a multiple of 8. */
const IN_PLACE = REUSE_BUFFER_MODE | RESERVE_START_SPACE | SUBMISSION_BYTES;
const BUFFER_BYTES = 64 << 10;
const NOTHING = Buffer.alloc(0);

const aligned = (size) => (size + 7) & ~7;

/** Fills in a head: `words` of a buffer, `at` in words. */
function writeHead(words, at, size, op, flags, to, tag, tagHigh, bytesTotal) {
  words[at] = size;
  words[at + 1] = op | (flags << 16);
  words[at + 2] = to.number;
  words[at + 3] = to.ms;
  words[at + 4] = tag;
  words[at + 5] = tagHigh;
  words[at + 6] = to.key;
  words[at + 7] = to.keyHigh;
  words[at + 8] = bytesTotal;
  words[at + 9] = to.marker;
}

const wordsOf = (buffer) => new Uint32Array(buffer.buffer, buffer.byteOffset, buffer.length >> 2);

/** Where a record goes: the fields of its head that are not the request's own. */
class Address {
  constructor(number, ms = 0, key = 0, keyHigh = 0) {
    this.number = number;
    this.ms = ms;
    this.key = key;
    this.keyHigh = keyHigh;
    this.marker = 0;
  }
}

class Outbox {
  /** `recordMax`: bytes of the largest record; what is larger goes in fragments. */
  constructor(handle, recordMax) {
    this._handle = handle;
    this._recordMax = recordMax;
    /** What was written before: runs of whole records. */
    this._backlog = [];
    this._renew();
  }

  _renew() {
    this._buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
    this._words = wordsOf(this._buffer);
    this._start = this._end = 0;
    if (writer.active === this) writer.active = null;
  }

  get isEmpty() {
    return this._start === this._end && this._backlog.length === 0;
  }

  /** How many bytes wait. */
  get size() {
    return this._backlog.reduce((sum, run) => sum + run.end - run.start, this._end - this._start);
  }

  /** Bytes of the run that is being written. */
  get runSize() {
    return this._end - this._start;
  }

  /** One record whose payload is a value that the packer takes as it is. */
  value(op, flags, to, tag, tagHigh, value) {
    if (writer.active !== this) {
      packr.useBuffer(this._buffer);
      packr.position = this._end;
      writer.active = this;
    }
    const buffer = packr.pack(value, IN_PLACE);
    const { start, end } = buffer;
    const size = end - start;
    if (size > this._recordMax) {
      this._large(op, flags, to, tag, tagHigh, buffer.subarray(start + SUBMISSION_BYTES, end));
      return;
    }
    if (buffer !== this._buffer || start !== aligned(this._end)) this._begin(buffer, start);
    writeHead(this._words, start >> 2, size, op, flags, to, tag, tagHigh, 0);
    this._end = aligned(end);
  }

  /** One record whose payload is bytes. */
  bytes(op, flags, to, tag, tagHigh, payload = NOTHING) {
    const size = SUBMISSION_BYTES + payload.length;
    if (size > this._recordMax) this._large(op, flags, to, tag, tagHigh, payload);
    else this._append(this._record(op, flags, to, tag, tagHigh, payload, 0));
  }

  _record(op, flags, to, tag, tagHigh, payload, bytesTotal) {
    const size = SUBMISSION_BYTES + payload.length;
    const record = Buffer.allocUnsafeSlow(aligned(size));
    writeHead(wordsOf(record), 0, size, op, flags, to, tag, tagHigh, bytesTotal);
    record.set(payload, SUBMISSION_BYTES);
    return record;
  }

  _append(record) {
    this._putAside();
    this._backlog.push({ buffer: record, start: 0, end: record.length });
  }

  /** A message in fragments. */
  _large(op, flags, to, tag, tagHigh, payload) {
    this._putAside();
    const step = this._recordMax - SUBMISSION_BYTES;
    for (let at = 0; at < payload.length; at += step) {
      const more = at + step < payload.length ? FLAG_MORE : 0;
      const part = payload.subarray(at, at + step);
      this._append(this._record(op, flags | more, to, tag, tagHigh, part, at ? 0 : payload.length));
    }
    this._renew();
  }

  /** The run that is being written ends, and a new one begins. */
  _begin(buffer, start) {
    this._putAside();
    if (buffer !== this._buffer) {
      this._buffer = buffer;
      this._words = wordsOf(buffer);
    }
    this._start = start;
  }

  _putAside() {
    if (this._start < this._end) this._backlog.push({ buffer: this._buffer, start: this._start, end: this._end });
    this._start = this._end;
  }

  /**
   * Submits what there is, as far as there is room. OK, FULL, or why the record that is first in the line was refused.
   * `kept`: whether the loop is kept alive.
   */
  submit(kept) {
    while (this._backlog.length > 0) {
      const run = this._backlog[0];
      run.start += addon.submit(this._handle, run.buffer, run.start, run.end, kept);
      if (run.start < run.end) return addon.refused(this._handle);
      this._backlog.shift();
    }
    if (this._start < this._end) {
      this._start += addon.submit(this._handle, this._buffer, this._start, this._end, kept);
      if (this._start < this._end) return addon.refused(this._handle);
    }
    this._rewind();
    return OK;
  }

  /** Everything is submitted: its memory is written again from the beginning. */
  _rewind() {
    this._start = this._end = 0;
    if (this._buffer.length > BUFFER_BYTES) this._renew();
    else if (writer.active === this) packr.position = 0;
  }

  /** Takes the message out that is first in the line. Its tag and endpoint. */
  skip() {
    this._putAside();
    const { buffer, start } = this._backlog[0];
    const first = { endpoint: buffer.readUInt32LE(start + 8), tag: buffer.readUInt32LE(start + 16) };
    first.tagHigh = buffer.readUInt32LE(start + 20);
    let more = FLAG_MORE;
    while (more) {
      const run = this._backlog[0];
      more = run.buffer.readUInt16LE(run.start + 6) & FLAG_MORE;
      run.start += aligned(run.buffer.readUInt32LE(run.start));
      if (run.start >= run.end) this._backlog.shift();
    }
    return first;
  }

  clear() {
    this._backlog = [];
    this._renew();
  }
}

module.exports = { Address, FULL, Outbox };
