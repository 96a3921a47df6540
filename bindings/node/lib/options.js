"use strict";

/** Options as URLs and configuration have them, and times. */

const { ConfigError, Timeout, badRequest } = require("./errors");
const { TIMEOUT_NONE } = require("./records");

const UNITS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
const SIZES = { "": 1, B: 1, KiB: 1 << 10, MiB: 1 << 20, GiB: 1 << 30 };

/** `maxInflight` and `max_inflight` are the same option. */
function optionName(name) {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function optionText(name, value) {
  if (["string", "number", "bigint", "boolean"].includes(typeof value)) return String(value);
  const message = `${name}: "${String(value)}": expected a string, number or boolean, as in heartbeat: "5s"`;
  throw new ConfigError(message, { code: "BADCONFIG", status: -105 });
}

/** Options as `key=value&key=value`. Undefined and null leave an option out. */
function query(options) {
  return Object.entries(options)
    .filter(([, value]) => value !== undefined && value !== null)
    .map(([name, value]) => [optionName(name), optionText(name, value)].map(encodeURIComponent).join("="))
    .join("&");
}

/** A URL whose query has these options too. */
function withOptions(url, options = {}) {
  if (typeof url !== "string") {
    const message = `url: "${String(url)}": expected a string`;
    throw new ConfigError(message, { code: "BADCONFIG", status: -105 });
  }
  const more = query(options);
  if (!more) return url;
  const joint = /[?&]$/.test(url) ? "" : url.includes("?") ? "&" : "?";
  return `${url}${joint}${more}`;
}

/** A URL without its query and password. */
function shown(url) {
  const [, scheme, rest] = /^([^:]*:\/\/)?([^?]*)/.exec(url);
  const slash = rest.indexOf("/");
  const [authority, path] = slash < 0 ? [rest, ""] : [rest.slice(0, slash), rest.slice(slash)];
  const at = authority.lastIndexOf("@");
  const user = at < 0 ? "" : `${authority.slice(0, at).split(":")[0]}:***@`;
  return `${scheme || ""}${user}${authority.slice(at + 1)}${path}`;
}

/** A size such as `64KiB` in bytes; undefined if it is none. */
function bytes(text) {
  const found = /^(\d+)(B|KiB|MiB|GiB)?$/.exec(text);
  return found ? Number(found[1]) * SIZES[found[2] || ""] : undefined;
}

/**
 * A time as a record holds it, in milliseconds. Undefined: the endpoint's default; Infinity: none. Numbers are seconds,
 * text has its unit.
 */
function milliseconds(timeout) {
  if (timeout === undefined || timeout === null) return 0;
  const found = typeof timeout === "string" ? /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(timeout) : null;
  const ms = found ? Number(found[1]) * UNITS[found[2]] : typeof timeout === "number" ? timeout * 1000 : NaN;
  if (Number.isNaN(ms)) {
    throw badRequest(`timeout: "${timeout}": expected seconds, text with a unit as in "250ms", or Infinity`);
  }
  if (ms <= 0) {
    throw new Timeout("the time was over before the request began", { status: -202, fate: "not_sent" });
  }
  return Math.min(Math.ceil(ms), TIMEOUT_NONE);
}

/** The 64 bits of a route, in two halves. 0 means "no key" in a record: a route of 0 becomes 2^64 - 1. */
function routeKey(route) {
  if (typeof route !== "bigint" && !Number.isSafeInteger(route)) {
    throw badRequest(`route: ${String(route)}: expected an integer`);
  }
  const key = BigInt.asUintN(64, BigInt(route)) || 2n ** 64n - 1n;
  return [Number(key & 0xffffffffn), Number(key >> 32n)];
}

module.exports = { bytes, milliseconds, query, routeKey, shown, withOptions };
