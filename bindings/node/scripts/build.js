"use strict";

/**
 * Builds the addon with the C compiler (`CC`, or `cc`) into build/iokernel.node. With `--if-missing` it does nothing
 * where there is one already, built or brought along.
 *
 * The headers are this node's own. The addon uses the stable interface of Node (version 8 and later): what is built
 * with one version runs with those that come after.
 */

const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");

const PACKAGE = path.dirname(__dirname);
const PREBUILT = path.join(PACKAGE, "prebuilds", `${process.platform}-${process.arch}`, "iokernel.node");
const OUTPUT = path.join(PACKAGE, "build", "iokernel.node");
const FLAGS = ["-std=gnu11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"];

function firstFolder(what, file, folders) {
  const found = folders.find((folder) => fs.existsSync(path.join(folder, file)));
  if (found) return found;
  throw new Error(`${file} (${what}) was not found in ${folders.join(", ")}`);
}

function includes() {
  const node = firstFolder("the headers of Node", "node_api.h", [
    path.resolve(process.execPath, "..", "..", "include", "node"),
    "/usr/include/node",
    "/usr/include/nodejs/src",
  ]);
  const own = firstFolder("the header of iokernel", "iokernel.h", [
    path.resolve(PACKAGE, "..", "..", "include"),
    path.join(PACKAGE, "include"),
  ]);
  return [node, own].map((folder) => `-I${folder}`);
}

function build(output) {
  const folder = path.join(PACKAGE, "src");
  const sources = fs.readdirSync(folder).filter((name) => name.endsWith(".c"));
  fs.mkdirSync(path.dirname(output), { recursive: true });
  // Written beside and renamed: a program that runs with the old one is not disturbed.
  const fresh = `${output}.${process.pid}`;
  const files = sources.map((name) => path.join(folder, name));
  const words = [...FLAGS, ...includes(), ...files, "-o", fresh, "-lpthread", "-ldl"];
  const done = spawnSync(process.env.CC || "cc", words, { stdio: "inherit" });
  if (done.error) throw done.error;
  if (done.status !== 0) throw new Error(`the compiler ended with ${done.status}`);
  fs.renameSync(fresh, output);
}

if (require.main === module) {
  const isThere = [OUTPUT, PREBUILT].some((file) => fs.existsSync(file));
  if (!(process.argv.includes("--if-missing") && isThere)) build(OUTPUT);
}

module.exports = { PACKAGE, PREBUILT, build };
