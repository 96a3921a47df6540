"use strict";

/** Counters, sums, gauges and histograms: cells of shared memory that are read while the program hangs. */

const { addon } = require("./library");
const { opened } = require("./channel");

const BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];
const RESERVED = ["help", "unit", "merge", "buckets", "labels"];

class Cell {
  constructor(cells, name, labels) {
    this._cells = cells;
    this.name = name;
    this.labels = labels;
  }
}

class Counter extends Cell {
  inc(n = 1) {
    if (!Number.isSafeInteger(n) || n < 0) throw new RangeError(`inc: ${n}: expected a whole number from 0 on`);
    addon.cellCount(this._cells, 0, n);
  }

  get value() {
    return addon.cellBits(this._cells, 0);
  }
}

class Sum extends Cell {
  inc(n = 1) {
    if (!Number.isFinite(n) || n < 0) throw new RangeError(`inc: ${n}: expected a finite number from 0 on`);
    addon.cellAdd(this._cells, 0, n);
  }

  get value() {
    return addon.cellNumber(this._cells, 0);
  }
}

class Gauge extends Cell {
  set(value) {
    if (typeof value !== "number") throw new RangeError(`set: ${String(value)}: expected a number`);
    addon.cellSet(this._cells, 0, value);
  }

  inc(n = 1) {
    if (!Number.isFinite(n)) throw new RangeError(`inc: ${n}: expected a finite number`);
    addon.cellAdd(this._cells, 0, n);
  }

  dec(n = 1) {
    this.inc(-n);
  }

  get value() {
    return addon.cellNumber(this._cells, 0);
  }
}

class Histogram extends Cell {
  constructor(cells, name, labels, buckets) {
    super(cells, name, labels);
    this.buckets = buckets;
  }

  observe(value) {
    if (!Number.isFinite(value)) throw new RangeError(`observe: ${value}: expected a finite number`);
    const { buckets } = this;
    let at = 0;
    while (at < buckets.length && value > buckets[at]) at++;
    addon.cellCount(this._cells, at, 1);
    addon.cellAdd(this._cells, buckets.length + 1, value);
  }

  /** Observes how long `work` takes, in seconds; of a promise, until it is settled. */
  time(work) {
    const start = performance.now();
    const done = () => this.observe((performance.now() - start) / 1000);
    let result;
    try {
      result = work();
    } catch (error) {
      done();
      throw error;
    }
    if (typeof result?.then === "function") return Promise.resolve(result).finally(done);
    done();
    return result;
  }
}

const KINDS = { counter: Counter, sum: Sum, gauge: Gauge, histogram: Histogram };

/** A series: `options` are `help`, `unit`, `merge`, `buckets` and `labels`; what else they have is a label as well. */
function make(kernel, kind, name, options = {}) {
  const { help = "", unit = "", merge, buckets = BUCKETS } = options;
  const more = Object.fromEntries(Object.entries(options).filter(([key]) => !RESERVED.includes(key)));
  const labels = { ...options.labels, ...more };
  const spec = { kind, name, help, unit };
  if (kind === "gauge") spec.merge = merge ?? "sum";
  const edges = buckets.filter((edge) => edge !== Infinity);
  if (kind === "histogram") spec.buckets = edges.join(",");
  for (const label of Object.keys(labels).sort()) spec[`label.${label}`] = String(labels[label]);
  const pairs = Object.entries(spec).map((pair) => pair.map(encodeURIComponent).join("="));
  const cells = opened(addon.cells(kernel.handle, pairs.join("&")));
  return new KINDS[kind](cells, name, labels, edges);
}

module.exports = { Counter, Gauge, Histogram, Sum, make };
