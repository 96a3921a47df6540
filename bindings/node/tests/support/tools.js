"use strict";

/** What tests have in common. */

const { execFile } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const test = require("node:test");
const v8 = require("node:v8");
const vm = require("node:vm");
const iokernel = require("../..");
const { Redis } = require("./redis");

const PACKAGE = path.join(__dirname, "..", "..");

/** A server for the tests of a file, or the one that IOK_REDIS names; and an endpoint in a kernel of their own. */
function withRedis() {
  const one = { url: process.env.IOK_REDIS, kernel: null, redis: null, server: null };
  test.before(async () => {
    if (!one.url) {
      one.server = await Redis.start();
      one.url = one.server.url;
    }
    one.kernel = new iokernel.Kernel();
    one.redis = one.kernel.open(one.url);
    await one.redis.waitReady(10);
  });
  test.after(async () => {
    await one.kernel?.close();
    await one.server?.stop();
  });
  return one;
}

/** Runs a program of our own, by its text or its path: its exit code and what it said. */
function run(program, { args = [], env = {}, flags = [], timeout = 30_000 } = {}) {
  const words = [...flags, ...(program.includes("\n") ? ["-e", program, "--"] : [program]), ...args];
  const options = { env: { ...process.env, ...env }, cwd: PACKAGE, timeout };
  return new Promise((resolve) => {
    execFile(process.execPath, words, options, (error, stdout, stderr) => {
      resolve({ code: error ? (error.code ?? error.signal) : 0, stdout, stderr });
    });
  });
}

/** Collects garbage, and lets what hangs on it run. */
async function collect() {
  v8.setFlagsFromString("--expose-gc");
  const gc = vm.runInNewContext("gc");
  for (let round = 0; round < 5; round++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Waits until something is so. */
async function until(isSo, milliseconds = 5000) {
  const deadline = performance.now() + milliseconds;
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error(`not so within ${milliseconds} ms: ${isSo}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function temporaryFolder() {
  return fs.mkdtempSync(path.join(os.tmpdir(), "iok-node-"));
}

const range = (count) => Array.from({ length: count }, (_, number) => number);

module.exports = { PACKAGE, collect, range, run, temporaryFolder, until, withRedis };
