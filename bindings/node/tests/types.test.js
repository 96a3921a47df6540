"use strict";

/** The types, as TypeScript sees them; and that they and the module name the same things. */

const assert = require("node:assert/strict");
const { execFileSync, spawnSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const test = require("node:test");
const iokernel = require("..");
const { PACKAGE } = require("./support/tools");

const TSC = path.join(PACKAGE, "node_modules", ".bin", "tsc");
const skip = fs.existsSync(TSC) ? false : "typescript is not installed";

test("a program with types", { skip }, () => {
  const folder = path.join(PACKAGE, "tests", "types");
  const { status, stdout } = spawnSync(TSC, ["--project", folder, "--noEmit"], { encoding: "utf8" });
  assert.equal(status, 0, stdout);
});

test("what the types forbid", { skip }, () => {
  const folder = path.join(PACKAGE, "tests", "types");
  const { status, stdout } = spawnSync(TSC, ["--project", path.join(folder, "wrong.json"), "--noEmit"], {
    encoding: "utf8",
  });
  assert.notEqual(status, 0);
  const lines = fs.readFileSync(path.join(folder, "wrong.ts"), "utf8").split("\n");
  const wanted = lines.flatMap((line, at) => (line.includes("// wrong") ? [at + 1] : []));
  const found = [...stdout.matchAll(/wrong\.ts\((\d+),/g)].map(([, line]) => Number(line));
  assert.deepEqual([...new Set(found)], wanted, stdout);
});

test("the module exports what the types declare", () => {
  const text = fs.readFileSync(path.join(PACKAGE, "index.d.ts"), "utf8");
  const declared = [...text.matchAll(/^export (?:class|function) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual([...new Set(declared)].sort(), Object.keys(iokernel).sort());
});

test("classes have the members that the types declare", () => {
  const text = fs.readFileSync(path.join(PACKAGE, "index.d.ts"), "utf8");
  for (const [, name, body] of text.matchAll(/^export class (\w+)[^{]*\{\n([\s\S]*?)^\}/gm)) {
    const { prototype } = iokernel[name];
    const members = [...body.matchAll(/^ {2}(\w+)(?:<[^>]*>)?\(/gm)].map(([, member]) => member);
    for (const member of members) {
      if (member !== "constructor") assert.equal(typeof prototype[member], "function", `${name}.${member}`);
    }
  }
});

test("import works as require does", () => {
  const text = `import iokernel, { Kernel, open } from "iokernel";
    console.log(iokernel.Kernel === Kernel, typeof open);`;
  const words = ["--input-type=module", "-e", text];
  const said = execFileSync(process.execPath, words, { cwd: PACKAGE, encoding: "utf8" });
  assert.equal(said, "true function\n");
});
