"use strict";

/** The examples say what their heads promise. */

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const test = require("node:test");
const { PACKAGE, run, temporaryFolder, withRedis } = require("./support/tools");

const FOLDER = path.resolve(PACKAGE, "..", "..", "examples", "node");
const one = withRedis();

// As a program finds us that has installed us.
let modules;
test.before(() => {
  modules = temporaryFolder();
  fs.symlinkSync(PACKAGE, path.join(modules, "iokernel"));
});
test.after(() => fs.rmSync(modules, { recursive: true }));

for (const name of fs.readdirSync(FOLDER).filter((file) => file.endsWith(".js"))) {
  test(name, async () => {
    const [head] = fs.readFileSync(path.join(FOLDER, name), "utf8").split("*/");
    const lines = head.split("\n").map((line) => line.replace(/^ \* ?/, ""));
    const at = lines.findIndex((line) => line.startsWith("$ node "));
    const promised = lines.slice(at + 1).join("\n");
    const found = { args: [one.url], env: { NODE_PATH: modules } };
    const { code, stdout, stderr } = await run(path.join(FOLDER, name), found);
    assert.deepEqual([code, stdout.trim(), stderr], [0, promised.trim(), ""]);
  });
}

test("the programs of the README", async () => {
  const readme = fs.readFileSync(path.join(PACKAGE, "README.md"), "utf8");
  const programs = [...readme.matchAll(/^```js\n([\s\S]*?)^```/gm)].map(([, text]) => text);
  assert.ok(programs.length > 2);
  for (const text of programs) {
    const file = path.join(modules, "program.js");
    fs.writeFileSync(file, text.replaceAll("redis://127.0.0.1:6379", one.url));
    const { code, stderr } = await run(file, { env: { NODE_PATH: modules } });
    assert.equal(code, 0, `${text}\n${stderr}`);
  }
});
