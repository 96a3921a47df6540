"use strict";

/**
 * A channel: the way of one thread, that is of one event loop, to the kernel. What is asked for in one turn of the loop
 * goes in one call; completions are taken in runs when the loop finds the channel's descriptor readable.
 */

const { addon } = require("./library");
const { errorFor, check } = require("./errors");
const { Completion, Inbox } = require("./inbox");
const { Address, Outbox } = require("./outbox");
const { decode, plain, view } = require("./values");
const options = require("./options");
const records = require("./records");

const { COMPLETION_BYTES, ENCODING_BYTES, ENCODING_TEXT, FLAG_QUIET, KIND_DONE } = records;
const { OP_CANCEL, OP_REPLY, OP_REQUEST } = records;
const { FULL, INTERRUPTED, OK, TIMED_OUT, TOO_LARGE } = records;

const RING_BYTES = 1 << 20;
/** In the high half of the tags of requests that nobody waits for. */
const QUIET_TAG = 1 << 30;
/** A turn that has written so much does not wait for its end. */
const FLUSH_BYTES = 32 << 10;
/** Runs that are taken before others in the loop have their turn. */
const RUNS_MAX = 8;
const WAIT_SLICE_MS = 1000;
const CANCELLED = -203;
/** What the program may have left unsent before `send` says false. */
const UNSENT_BYTES_MAX = 4 << 20;

/** Who waits for the completions of a tag: a promise, or a sink that takes each of them. */
class Waiter {
  constructor(resolve, reject, sink) {
    this.resolve = resolve;
    this.reject = reject;
    this.sink = sink;
    this.slot = 0;
  }
}

/** What somebody who blocks waits for. */
class Outcome {
  isDone = false;
  value = undefined;
  error = null;

  resolve = (value) => {
    this.value = value;
    this.isDone = true;
  };

  reject = (error) => {
    this.error = error;
    this.isDone = true;
  };

  completion(one) {
    this.resolve(one);
  }
}

let newResolve = null;
let newReject = null;
const capture = (resolve, reject) => {
  newResolve = resolve;
  newReject = reject;
};

/** Arguments as the packer takes them. */
function prepare(args) {
  for (let at = 0; at < args.length; at++) {
    if (typeof args[at] !== "string") args[at] = plain(args[at]);
  }
}

function settle(waiter, encoding, data, start, end) {
  let value;
  try {
    value = decode(encoding, data, start, end);
  } catch (error) {
    waiter.reject(error);
    return;
  }
  waiter.resolve(value);
}

/** What a function of the addon has opened; throws the error of a status. */
function opened(result) {
  return typeof result === "number" ? check(result) : result;
}

const endOf = (status, slot) => new Completion(KIND_DONE, 0, status, slot, 0, 0, 2, 0, null, 0, 0);

/** What a signal has ended here. */
function cancelled(signal, fate) {
  return because(errorFor(CANCELLED, { fate, said: ["CANCELLED", "cancelled by the program"] }), signal);
}

/** A Cancelled that says what the program's signal said. */
function because(error, signal) {
  error.cause = signal.reason;
  return error;
}

/** An error with the stack of who waits for it. */
function here(error) {
  Error.captureStackTrace(error, here);
  return error;
}

class Channel {
  /** `config`: options of `iok_channel_open`, as `{ ring: "1MiB" }`; `names`: URLs of endpoints by their numbers. */
  constructor(kernel, config, names) {
    this._handle = opened(addon.channelOpen(kernel, options.query(config), () => this._readable()));
    this._names = names;
    this._outbox = new Outbox(this._handle, (options.bytes(config.ring ?? "") ?? RING_BYTES) / 4);
    this._inbox = new Inbox(this._handle);
    /** Waiters by their tags; tag 0 is nobody's. */
    this._waiters = [null];
    this._free = [];
    this._live = 0;
    this._kept = false;
    this._quiet = 0;
    this._scheduled = false;
    this._drained = [];
    this._signals = new Map();
    this._turn = () => this.flush();
    /** Takes what is no answer to anything of ours: a listener has a channel of its own. */
    this.listener = null;
    /** What ended it, or 0. */
    this.ended = 0;
    /** Called with the error of a one-way request that failed. */
    this.onFailure = null;
  }

  // Submitting

  /** One request with a promise of its reply. `to`: an Address. `op`: what it is, if it is no ordinary one. */
  request(flags, to, args, signal, op = OP_REQUEST) {
    if (signal !== undefined) {
      return this._abortable(signal, (waiter) => this._request(op, flags, to, args, waiter));
    }
    const promise = new Promise(capture);
    this._request(op, flags, to, args, new Waiter(newResolve, newReject, null));
    return promise;
  }

  _request(op, flags, to, args, waiter) {
    if (this.ended) throw this._endedError();
    prepare(args);
    const slot = this._take(waiter);
    try {
      this._outbox.value(op, flags, to, slot, 0, args);
    } catch (error) {
      this._leave(slot);
      throw error;
    }
    this._written();
  }

  /** A promise of what `begin` asks for; the signal ends it. */
  _abortable(signal, begin) {
    if (signal.aborted) throw cancelled(signal, 1);
    return new Promise((resolve, reject) => {
      const replied = (value) => {
        this._unheed(signal, waiter);
        resolve(value);
      };
      const failed = (error) => {
        this._unheed(signal, waiter);
        reject(error.status === CANCELLED ? because(error, signal) : error);
      };
      const waiter = new Waiter(replied, failed, null);
      begin(waiter);
      this._heed(signal, waiter);
    });
  }

  /** All that one signal may end share one listener. */
  _heed(signal, waiter) {
    let heeding = this._signals.get(signal);
    if (!heeding) {
      const waiters = new Set();
      heeding = { waiters, abort: () => waiters.forEach((one) => this.cancel(one)) };
      this._signals.set(signal, heeding);
      signal.addEventListener("abort", heeding.abort, { once: true });
    }
    heeding.waiters.add(waiter);
  }

  _unheed(signal, waiter) {
    const heeding = this._signals.get(signal);
    heeding.waiters.delete(waiter);
    if (heeding.waiters.size > 0) return;
    this._signals.delete(signal);
    signal.removeEventListener("abort", heeding.abort);
  }

  /** One request that blocks this thread. */
  requestNow(flags, to, args) {
    const outcome = new Outcome();
    this._request(OP_REQUEST, flags, to, args, new Waiter(outcome.resolve, outcome.reject, null));
    return this._result(outcome);
  }

  /** One request whose reply nobody waits for. False: more waits to be sent than should. */
  send(flags, to, args) {
    if (this.ended) throw this._endedError();
    prepare(args);
    this._outbox.value(OP_REQUEST, flags | FLAG_QUIET, to, this._quietTag(), QUIET_TAG, args);
    this._written();
    return this._outbox.size < UNSENT_BYTES_MAX;
  }

  /** A promise of when what waits to be sent is with the kernel. */
  drained() {
    if (this._outbox.isEmpty || this.ended) return Promise.resolve();
    return new Promise((resolve) => this._drained.push(resolve));
  }

  /** Any operation with bytes as payload; `waiter` gets what it completes with. */
  submit(op, flags, to, payload, waiter) {
    if (this.ended) throw this._endedError();
    this._outbox.bytes(op, flags, to, this._take(waiter), 0, payload);
    this._written();
    return waiter;
  }

  /** An operation that completes only if it fails. The tag is one that a listener was given, or nobody's. */
  tell(op, to, payload, tag = this._quietTag(), tagHigh = QUIET_TAG) {
    if (this.ended) throw this._endedError();
    this._outbox.bytes(op, FLAG_QUIET, to, tag, tagHigh, payload);
    this._written();
  }

  /** The reply to a listener's request, under that request's tag. Completes only if it fails. */
  reply(to, tag, tagHigh, value) {
    if (this.ended) throw this._endedError();
    this._outbox.value(OP_REPLY, FLAG_QUIET, to, tag, tagHigh, plain(value));
    this._written();
  }

  /** So many more things keep the loop alive. */
  hold(more) {
    this._live += more;
    this._keep();
  }

  _quietTag() {
    this._quiet = (this._quiet + 1) >>> 0;
    return this._quiet;
  }

  /** Any operation, with a promise of its completion's value. */
  ask(op, flags, to, payload, signal) {
    const begin = (waiter) => this.submit(op, flags, to, payload, waiter);
    if (signal !== undefined) return this._abortable(signal, begin);
    const promise = new Promise(capture);
    begin(new Waiter(newResolve, newReject, null));
    return promise;
  }

  /** Any operation, blocking this thread. Its completion. */
  askNow(op, to, payload) {
    const outcome = new Outcome();
    this.submit(op, 0, to, payload, new Waiter(null, null, outcome));
    const done = this._result(outcome);
    if (done.status) throw here(done.error(this._names));
    return done;
  }

  /** Asks to end what is under way; it then completes as cancelled. */
  cancel(waiter) {
    if (this.ended || this._waiters[waiter.slot] !== waiter) return;
    this._outbox.bytes(OP_CANCEL, 0, new Address(0), waiter.slot, 0);
    this._written();
  }

  _take(waiter) {
    const slot = this._free.length > 0 ? this._free.pop() : this._waiters.length;
    this._waiters[slot] = waiter;
    waiter.slot = slot;
    this._live++;
    return slot;
  }

  _leave(slot) {
    this._waiters[slot].slot = 0;
    this._waiters[slot] = null;
    this._free.push(slot);
    this._live--;
  }

  _written() {
    if (!this._scheduled) {
      this._scheduled = true;
      process.nextTick(this._turn);
    } else if (this._outbox.runSize >= FLUSH_BYTES) {
      this._submit();
    }
  }

  /** Submits what is queued, as far as there is room. */
  flush() {
    this._scheduled = false;
    if (!this.ended) this._submit();
  }

  _submit() {
    this._kept = this._live > 0 || this._drained.length > 0;
    let status;
    while ((status = this._outbox.submit(this._kept)) === TOO_LARGE) {
      const { tag, tagHigh, endpoint } = this._outbox.skip();
      this._complete(new Completion(KIND_DONE, endpoint, status, tag, tagHigh, 0, 1, 0, null, 0, 0));
    }
    if (status === OK) this._tellDrained();
    else if (status !== FULL) this._end(status);
  }

  _tellDrained() {
    for (const resolve of this._drained.splice(0)) resolve();
  }

  // Completing

  /** What the loop calls. The descriptor is readable until there was nothing left. */
  _readable() {
    for (let run = 0; run < RUNS_MAX && this._takeRun(); run++);
    if (!this._scheduled && !this._outbox.isEmpty && !this.ended) this._submit();
    this._keep();
  }

  _keep() {
    const kept = this._live > 0 || !this._outbox.isEmpty;
    if (kept === this._kept || this.ended) return;
    this._kept = kept;
    addon.keep(this._handle, kept);
  }

  _takeRun() {
    if (this.ended) return false;
    const size = this._inbox.drain();
    if (size > 0) this._dispatch(size);
    else if (size < 0) this._end(addon.channelStatus(this._handle));
    return size > 0;
  }

  /** Hands out the run that was just copied. */
  _dispatch(bytes) {
    const inbox = this._inbox;
    const { slab, words } = inbox;
    const end = inbox.position + bytes;
    for (let at = inbox.position; at < end; ) {
      const word = at >>> 2;
      const size = words[word];
      // A reply whole and without error, to one of our own tags: the common case.
      if (words[word + 1] === KIND_DONE && words[word + 3] === 0 && words[word + 5] === 0) {
        const slot = words[word + 4];
        const waiter = this._waiters[slot];
        if (waiter && waiter.sink === null && !inbox.hasParts) {
          this._leave(slot);
          this._reply(waiter, (words[word + 7] >>> 8) & 0xff, slab, at + COMPLETION_BYTES, at + size);
          at += (size + 7) & ~7;
          continue;
        }
      }
      const one = inbox.completion(word);
      if (one !== null) this._complete(one);
      at += (size + 7) & ~7;
    }
    inbox.position = end;
  }

  _reply(waiter, encoding, slab, start, end) {
    if (encoding === ENCODING_BYTES) {
      this._inbox.lent = true;
      waiter.resolve(view(slab, start, end));
    } else if (encoding === ENCODING_TEXT) {
      waiter.resolve(slab.utf8Slice(start, end));
    } else {
      this._inbox.lent = true;
      settle(waiter, encoding, slab, start, end);
    }
  }

  _complete(one) {
    const waiter = one.tagHigh === 0 ? this._waiters[one.tag] : undefined;
    if (waiter) {
      if (one.kind === KIND_DONE) this._leave(one.tag);
      if (waiter.sink !== null) waiter.sink.completion(one);
      else if (one.status) waiter.reject(one.error(this._names));
      else settle(waiter, one.encoding, one.data, one.start, one.end);
      return;
    }
    if (this.listener) this.listener.completion(one);
    else if (one.kind === KIND_DONE && one.status) this.onFailure?.(one.error(this._names));
  }

  // Waiting

  /** Blocks this thread until an outcome is there. Its value, or throws what went wrong. */
  _result(outcome) {
    this.flush();
    while (!outcome.isDone) {
      const status = addon.wait(this._handle, WAIT_SLICE_MS);
      if (status !== OK && status !== TIMED_OUT && status !== INTERRUPTED) this._end(status);
      while (this._takeRun());
      if (!this._outbox.isEmpty && !this.ended) this._submit();
    }
    this._keep();
    if (outcome.error) throw here(outcome.error);
    return outcome.value;
  }

  // Ending

  _endedError() {
    return errorFor(this.ended, { fate: 1, text: this.ended === -103 ? "" : addon.lastError() });
  }

  /** The channel is of no use any more: whoever waits is told. */
  _end(status) {
    if (this.ended) return;
    this.ended = status;
    this._outbox.clear();
    for (const waiter of this._waiters.splice(0)) {
      if (!waiter) continue;
      if (waiter.sink) waiter.sink.completion(endOf(status, waiter.slot));
      else waiter.reject(errorFor(status, { fate: 2 }));
    }
    this.listener?.completion(endOf(status, 0));
    this._tellDrained();
    addon.channelClose(this._handle);
  }

  /** What has come is handed out; the rest ends as closed. */
  close() {
    while (this._takeRun());
    this._end(-103);
  }
}

module.exports = { Channel, Waiter, cancelled, opened };
