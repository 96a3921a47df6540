"use strict";

/** A parent and its children, each with its own replies, while a request of the parent's waits. */

const { fork } = require("node:child_process");
const { open } = require("../..");

const url = process.argv[2];

async function own() {
  const { pid } = process;
  return Number(await open(url).call("ECHO", pid)) === pid;
}

async function parent() {
  const redis = open(url);
  await redis.waitReady(5);
  const waiting = redis.call("BLPOP", `n:never:${process.pid}`, 1);
  const child = () => new Promise((resolve) => fork(__filename, [url]).on("message", resolve));
  const children = await Promise.all([child(), child(), child()]);
  console.log(children.join(), await own(), await waiting);
}

if (process.send) own().then((said) => process.send(said));
else parent();
