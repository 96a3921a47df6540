"use strict";

/**
 * Markers: what the program is doing, for those who ask while it does. Tasks take turns on a thread, so what a request
 * was made in is kept by AsyncLocalStorage, from the first marker on.
 */

const { AsyncLocalStorage } = require("node:async_hooks");
const { addon } = require("./library");

/** This thread's slots by the areas of their kernels; null where there is none: then nothing is shown. */
const slots = new Map();
let entered = null;

/** The number of the marker that runs here, for requests of a kernel; 0 if none does. */
function current(kernel) {
  if (entered === null) return 0;
  const entry = entered.getStore();
  return entry !== undefined && entry.area === kernel.area ? entry.serial : 0;
}

function slotOf(kernel) {
  if (!slots.has(kernel.area)) {
    const slot = addon.markerSlot(kernel.handle);
    slots.set(kernel.area, typeof slot === "number" ? null : slot);
  }
  return slots.get(kernel.area);
}

/** `render invoice id=7` */
function textOf(text, fields) {
  return [text, ...Object.entries(fields).map(([name, value]) => `${name}=${value}`)].join(" ").replaceAll("\0", " ");
}

/** Runs `work` inside of a marker, which lasts until what it returns is settled. */
function run(kernel, text, fields, work) {
  const slot = slotOf(kernel);
  if (slot === null) return work();
  entered ??= new AsyncLocalStorage();
  const serial = addon.markerEnter(slot, textOf(text, fields));
  const leave = () => addon.markerLeave(slot, serial);
  let result;
  try {
    result = entered.run({ area: kernel.area, serial }, work);
  } catch (error) {
    leave();
    throw error;
  }
  if (typeof result?.then === "function") return Promise.resolve(result).finally(leave);
  leave();
  return result;
}

module.exports = { current, run };
