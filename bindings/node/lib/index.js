"use strict";

/**
 * iokernel: all the networking of a program in one I/O thread that its interpreter cannot stall.
 *
 *     const { open } = require("iokernel");
 *
 *     const cache = open("redis://cache.internal");       // returns at once
 *     await cache.call("SET", "greeting", "hello");
 *
 * `index.d.ts` describes each function.
 */

const { Counter, Gauge, Histogram, Sum } = require("./cells");
const { Endpoint, Lease } = require("./endpoint");
const { BadRequest, Cancelled, Closed, ConfigError, ConnectionLost, IOKernelError } = require("./errors");
const { Overloaded, RemoteError, Timeout, Unavailable } = require("./errors");
const { Kernel, attach, defaultKernel } = require("./kernel");
const { Listener } = require("./listener");
const { Request } = require("./request");
const { Subscription, Watch } = require("./subscription");
const { Attributed, Extension } = require("./values");

const open = (url, options) => defaultKernel().open(url, options);
const listen = (url, options) => defaultKernel().listen(url, options);
const counter = (name, options) => defaultKernel().counter(name, options);
const sum = (name, options) => defaultKernel().sum(name, options);
const gauge = (name, options) => defaultKernel().gauge(name, options);
const histogram = (name, options) => defaultKernel().histogram(name, options);
const marker = (text, fields, work) => defaultKernel().marker(text, fields, work);

// Written out one by one: so `import` finds the names.
module.exports = {
  Attributed,
  BadRequest,
  Cancelled,
  Closed,
  ConfigError,
  ConnectionLost,
  Counter,
  Endpoint,
  Extension,
  Gauge,
  Histogram,
  IOKernelError,
  Kernel,
  Lease,
  Listener,
  Overloaded,
  RemoteError,
  Request,
  Subscription,
  Sum,
  Timeout,
  Unavailable,
  Watch,
  attach,
  counter,
  defaultKernel,
  gauge,
  histogram,
  listen,
  marker,
  open,
  sum,
};
