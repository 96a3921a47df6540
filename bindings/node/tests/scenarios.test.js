"use strict";

/** The shared scenarios, each a test. */

const assert = require("node:assert/strict");
const path = require("node:path");
const test = require("node:test");
const { PACKAGE, run } = require("./support/tools");
const { Redis } = require("./support/redis");

const SCENARIOS = path.resolve(PACKAGE, "..", "scenarios", "scenarios.json");
const { scenarios } = require(process.env.IOK_SCENARIOS || SCENARIOS);

let lines = [];
test.before(async () => {
  const server = await Redis.start();
  const env = { IOK_SCENARIOS: process.env.IOK_SCENARIOS || SCENARIOS, IOK_REDIS: server.url };
  const { stdout, stderr } = await run("tests/scenarios.js", { env, timeout: 180_000 });
  await server.stop();
  lines = stdout.split("\n");
  if (stderr) process.stderr.write(stderr);
});

for (const [at, { name }] of scenarios.entries()) {
  test(name, (t) => {
    const line = lines.find((one) => one.replace("not ", "").startsWith(`ok ${at + 1} - `)) ?? "it did not run";
    if (line.includes("# SKIP")) return t.skip(line.split("# SKIP ")[1]);
    return assert.match(line, /^ok /);
  });
}
