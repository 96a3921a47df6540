"use strict";

/** What can go wrong, and what is known of the request then. */

const { addon } = require("./library");

const FATES = [null, "not_sent", "maybe_executed", "replied"];

class IOKernelError extends Error {
  constructor(message, fields = {}) {
    super(message);
    this.code = fields.code || "";
    this.status = fields.status || 0;
    this.fate = fields.fate ?? null;
    this.endpoint = fields.endpoint ?? null;
    this.peer = fields.peer || null;
  }

  get name() {
    return this.constructor.name;
  }

  get statusName() {
    return addon.statusName(this.status).replace("IOK_STATUS_", "");
  }

  get retriable() {
    return addon.statusRetriable(this.status);
  }
}

class RemoteError extends IOKernelError {}
class Timeout extends IOKernelError {}
class Unavailable extends IOKernelError {}
class ConnectionLost extends IOKernelError {}
class Overloaded extends IOKernelError {}
class Cancelled extends IOKernelError {}
class BadRequest extends IOKernelError {}
class Closed extends IOKernelError {}

class ConfigError extends BadRequest {
  constructor(message, fields) {
    super(message, fields);
    const found = /^([^:]+): (.*?): expected (.*)$/s.exec(message);
    this.key = found ? found[1] : null;
    this.value = found ? found[2].replace(/^["']|["']$/g, "") : null;
    this.expected = found ? found[3] : null;
  }
}

const KINDS = new Map([
  [-101, BadRequest],
  [-102, Closed],
  [-103, Closed],
  [-104, Closed],
  [-105, ConfigError],
  [-106, BadRequest],
  [-107, BadRequest],
  [-108, BadRequest],
  [-109, Closed],
  [-110, Closed],
  [-111, Closed],
  [-201, Overloaded],
  [-202, Timeout],
  [-203, Cancelled],
  [-204, Overloaded],
  [-206, Overloaded],
  [-301, RemoteError],
  [-302, ConnectionLost],
  [-303, Unavailable],
  [-304, ConnectionLost],
  [-305, Unavailable],
]);

/** Makes an error that has no stack: one of completions, where no caller's function is on it. */
function withoutStack(make) {
  const before = Error.stackTraceLimit;
  Error.stackTraceLimit = 0;
  try {
    return make();
  } finally {
    Error.stackTraceLimit = before;
  }
}

/** The error of a status. `said` is a completion's payload, `[code, message]`; `text` stands in for it. */
function errorFor(status, { fate = 0, endpoint = null, peer = 0, said = null, text = "" } = {}) {
  const [code, message] = Array.isArray(said) && said.length === 2 ? said.map(String) : ["", text];
  const Kind = KINDS.get(status) || IOKernelError;
  const fields = { code, status, fate: FATES[fate], endpoint, peer };
  return new Kind(message || addon.statusText(status), fields);
}

/** What is wrong with a value or an option; nothing was sent. */
function badRequest(message) {
  return new BadRequest(message, { code: "BADREQUEST", status: -107, fate: "not_sent" });
}

/** Throws the error of a function of the library. */
function check(status) {
  if (status < 0) throw errorFor(status, { fate: 1, text: addon.lastError() });
  return status;
}

const classes = {
  IOKernelError,
  RemoteError,
  Timeout,
  Unavailable,
  ConnectionLost,
  Overloaded,
  Cancelled,
  BadRequest,
  ConfigError,
  Closed,
};

module.exports = { ...classes, classes, badRequest, check, errorFor, withoutStack };
