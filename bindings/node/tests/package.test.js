"use strict";

/** The package: what is in it, and that it runs where there is neither a compiler nor the source tree. */

const assert = require("node:assert/strict");
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const test = require("node:test");
const { PACKAGE, run, temporaryFolder } = require("./support/tools");

const MODULES = path.join(PACKAGE, "node_modules");

test("packed, unpacked elsewhere, and used", async () => {
  const folder = temporaryFolder();
  try {
    const copy = path.join(folder, "tree", "bindings", "node");
    const kept = ["src", "lib", "scripts", "package.json", "index.d.ts", "README.md"];
    fs.mkdirSync(copy, { recursive: true });
    for (const name of kept) fs.cpSync(path.join(PACKAGE, name), path.join(copy, name), { recursive: true });
    fs.cpSync(path.resolve(PACKAGE, "..", "..", "include"), path.join(folder, "tree", "include"), { recursive: true });
    const env = { ...process.env, IOKERNEL_LIBRARY: require("../lib/library").libraryPath() };
    execFileSync("npm", ["pack", "--pack-destination", folder], { cwd: copy, env, stdio: "ignore" });

    const installed = path.join(folder, "app", "node_modules");
    fs.mkdirSync(installed, { recursive: true });
    const [tarball] = fs.readdirSync(folder).filter((name) => name.endsWith(".tgz"));
    execFileSync("tar", ["xzf", path.join(folder, tarball), "-C", installed]);
    fs.renameSync(path.join(installed, "package"), path.join(installed, "iokernel"));
    fs.symlinkSync(path.join(MODULES, "msgpackr"), path.join(installed, "msgpackr"));
    fs.rmSync(path.join(folder, "tree"), { recursive: true });

    const program = path.join(folder, "app", "program.js");
    fs.writeFileSync(program, `const { Kernel } = require("iokernel");
      const kernel = new Kernel();
      kernel.echo({ a: 1 }).then((said) => { console.log(said); return kernel.close(); });`);
    const nothing = { PATH: "/nonexistent", IOKERNEL_LIBRARY: "", CC: "/nonexistent" };
    assert.deepEqual(await run(program, { env: nothing }), { code: 0, stdout: "{ a: 1 }\n", stderr: "" });
    const script = path.join(installed, "iokernel", "scripts", "build.js");
    assert.equal((await run(script, { args: ["--if-missing"], env: nothing })).code, 0);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});

test("what is missing is said, with what to do", async () => {
  const wrong = await run("lib/index.js", { env: { IOKERNEL_LIBRARY: "/nowhere/libiokernel.so" } });
  assert.match(wrong.stderr, /IOKERNEL_LIBRARY: "\/nowhere\/libiokernel\.so": expected the path/);
  const other = await run("lib/index.js", { env: { IOKERNEL_LIBRARY: "/bin/sh" } });
  assert.match(other.stderr, /\/bin\/sh: cannot be loaded/);
});

test("no line is longer than 120, and no file than 600 lines", () => {
  const files = ["lib", "src", "tests", "bench", "scripts"].flatMap((folder) =>
    fs.readdirSync(path.join(PACKAGE, folder), { recursive: true }).map((name) => path.join(PACKAGE, folder, name)),
  );
  for (const file of [...files, path.join(PACKAGE, "index.d.ts"), path.join(PACKAGE, "README.md")]) {
    if (!fs.statSync(file).isFile()) continue;
    const lines = fs.readFileSync(file, "utf8").split("\n");
    assert.ok(lines.length <= 600, file);
    lines.forEach((line, at) => assert.ok(line.length <= 120, `${file}:${at + 1}`));
  }
});
