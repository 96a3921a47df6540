"use strict";

/**
 * Values between JavaScript and MessagePack.
 *
 * | MessagePack            | JavaScript                                                                  |
 * |------------------------|-----------------------------------------------------------------------------|
 * | nil, boolean           | null, boolean; given: also undefined                                        |
 * | int                    | number, or bigint beyond 2^53 (of any size: ext 2)                           |
 * | float                  | number                                                                      |
 * | str                    | string; what is no UTF-8 becomes U+FFFD                                     |
 * | bin                    | Buffer; given: also any ArrayBuffer, typed array or DataView                |
 * | array                  | Array                                                                       |
 * | map                    | an object if its keys are text, or bytes that are UTF-8; else a Map         |
 * | ext 1, error           | RemoteError                                                                 |
 * | ext 3, verbatim text   | string, without its format                                                  |
 * | ext 4, set             | Set                                                                         |
 * | ext 5, with attributes | Attributed                                                                  |
 * | other ext              | Extension                                                                   |
 */

const { isUtf8 } = require("node:buffer");
const { IOKernelError, RemoteError, badRequest, withoutStack } = require("./errors");
const { Packr, addExtension } = require("./msgpack");
const { ENCODING_BYTES, ENCODING_MSGPACK, ENCODING_TEXT } = require("./records");

const EXT_ERROR = 1;
const EXT_BIG_NUMBER = 2;
const EXT_VERBATIM = 3;
const EXT_SET = 4;
const EXT_ATTRIBUTED = 5;
const DEPTH_MAX = 64;
const EXPECTED =
  "expected null, boolean, number, bigint, string, Buffer, Set, or an array, object or Map of them";

class Extension {
  constructor(type, data) {
    this.type = type;
    this.data = data;
  }
}

class Attributed {
  constructor(value, attributes = {}) {
    this.value = value;
    this.attributes = attributes;
  }
}

const packr = new Packr({
  useRecords: false,
  mapsAsObjects: false,
  int64AsType: "auto",
  variableMapSize: true,
  encodeUndefinedAsNil: true,
  useToJSON: false,
});

// Writing

/** A value as the packer takes it whole; the same one if nothing of it must change. */
function plain(value, depth = 0) {
  switch (typeof value) {
    case "string":
    case "boolean":
    case "undefined":
      return value;
    case "number":
      // The packer writes integers beyond 32 bits as floats.
      return Number.isSafeInteger(value) && (value > 0xffffffff || value < -0x80000000) ? BigInt(value) : value;
    case "bigint":
      return value >= -(2n ** 63n) && value < 2n ** 64n ? value : extension(EXT_BIG_NUMBER, Buffer.from(`${value}`));
    case "object":
      return value === null ? null : plainObject(value, depth + 1);
    default:
      throw badRequest(`value: ${typeof value}: ${EXPECTED}`);
  }
}

function plainObject(value, depth) {
  if (depth > DEPTH_MAX) throw badRequest(`value: nested deeper than ${DEPTH_MAX}`);
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  if (Array.isArray(value)) return value.map((one) => plain(one, depth));
  if (value instanceof Map) return new Map([...value].map(([key, one]) => [plain(key, depth), plain(one, depth)]));
  if (value instanceof ArrayBuffer || value instanceof SharedArrayBuffer) return new Uint8Array(value);
  if (value instanceof Set) return extension(EXT_SET, pack([...value]));
  if (value instanceof IOKernelError) return extension(EXT_ERROR, pack([value.code || "ERR", value.message]));
  if (value instanceof Attributed) return extension(EXT_ATTRIBUTED, pack([value.attributes, value.value]));
  if (value instanceof Extension) return extension(value.type, value.data);
  const prototype = Object.getPrototypeOf(value);
  if (prototype === null || prototype.constructor?.name === "Object") {
    return new Map(Object.keys(value).map((key) => [key, plain(value[key], depth)]));
  }
  throw badRequest(`value: ${prototype.constructor?.name}: ${EXPECTED}`);
}

/** An ext as the packer takes it. */
class Packed {
  constructor(type, data) {
    this.type = type;
    this.data = data;
  }
}

function extension(type, data) {
  if (!(type >= 0 && type < 128) || !ArrayBuffer.isView(data)) {
    throw badRequest("value: Extension: expected a type from 0 to 127, and bytes");
  }
  return new Packed(type, data);
}

// One class for all types: the packer asks for one that it then does not write.
addExtension({
  Class: Packed,
  type: 127,
  pack({ type, data }, allocate) {
    const { target, targetView, position } = allocate(6 + data.byteLength);
    targetView.setUint8(position, 0xc9);
    targetView.setUint32(position + 1, data.byteLength);
    targetView.setUint8(position + 5, type);
    target.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), position + 6);
  },
});

/** Whoever packs into memory of their own says so here, and is told when others have done so meanwhile. */
const writer = { active: null };

/** A value as MessagePack. Throws BadRequest for what has none. */
function pack(value) {
  const given = plain(value);
  writer.active = null;
  packr.useBuffer(Buffer.allocUnsafeSlow(4096));
  return packr.pack(given);
}

// Reading

const UNPACK = new Map([
  [EXT_ERROR, (data) => remoteError(...unpack(data))],
  [EXT_BIG_NUMBER, (data) => BigInt(data.toString("latin1"))],
  [EXT_VERBATIM, (data) => data.toString("utf8", 4)],
  [EXT_SET, (data) => new Set(unpack(data))],
  [EXT_ATTRIBUTED, (data) => attributed(...unpack(data))],
]);

for (let type = 0; type < 127; type++) {
  const read = UNPACK.get(type) || ((data) => new Extension(type, data));
  addExtension({ type, unpack: (data) => read(Buffer.from(data)) });
}

function remoteError(code, message) {
  return withoutStack(() => new RemoteError(message, { code, status: -301, fate: "replied" }));
}

function attributed(attributes, value) {
  return new Attributed(value, attributes);
}

const span = { start: 0, end: 0 };

/** One MessagePack value. */
function unpack(data, start = 0, end = data.length) {
  span.start = start;
  span.end = end;
  return natural(packr.unpack(data, span));
}

/** Maps as objects, wherever they are. */
function natural(value) {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) {
    for (let at = 0; at < value.length; at++) {
      const one = value[at];
      if (typeof one === "object" && one !== null) value[at] = natural(one);
    }
    return value;
  }
  return value instanceof Map ? naturalMap(value) : value;
}

function naturalMap(map) {
  const object = {};
  for (const [key, value] of map) {
    const name = typeof key === "string" ? key : Buffer.isBuffer(key) && isUtf8(key) ? key.toString() : null;
    if (name === null) return new Map([...map].map((pair) => pair.map(natural)));
    if (name === "__proto__") {
      Object.defineProperty(object, name, {
        value: natural(value),
        configurable: true,
        enumerable: true,
        writable: true,
      });
    } else object[name] = natural(value);
  }
  return object;
}

/** The class that `subarray` makes Buffers of; its constructor takes a third of the time. */
const FastBuffer = Buffer[Symbol.species];

/** Bytes of a buffer as a Buffer that shares its memory. */
const view = (data, start, end) => new FastBuffer(data.buffer, data.byteOffset + start, end - start);

/** The payload of a completion. */
function decode(encoding, data, start, end) {
  if (encoding === ENCODING_MSGPACK) return unpack(data, start, end);
  if (encoding === ENCODING_TEXT) return data.utf8Slice(start, end);
  return encoding >= ENCODING_BYTES ? view(data, start, end) : null;
}

module.exports = { Attributed, Extension, decode, pack, packr, plain, unpack, view, writer };
