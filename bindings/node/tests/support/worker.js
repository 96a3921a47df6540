"use strict";

/** A worker of tests: asks so many times, a hundred at a time, and posts how many replies were its own. */

const { parentPort, workerData } = require("node:worker_threads");
const iokernel = require("../..");

async function main({ shared, url, requests, call }) {
  const redis = shared ? iokernel.attach(shared) : iokernel.open(url);
  let own = 0;
  for (let first = 0; first < requests; first += 100) {
    const numbers = Array.from({ length: Math.min(100, requests - first) }, (_, at) => String(first + at));
    const asked = numbers.map((number) => call.map((part) => part.replace("$number", number)));
    const found = await Promise.all(asked.map((request) => redis.call(...request)));
    own += found.filter((reply, at) => reply.toString() === asked[at][1]).length;
  }
  parentPort.postMessage(own);
  await redis.kernel.close();
}

main(workerData);
