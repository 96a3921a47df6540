"use strict";

/** Finds and loads the addon and the library. */

const fs = require("node:fs");
const path = require("node:path");

const ABI_VERSION = 1;
const NAME = "libiokernel.so";
const PACKAGE = path.dirname(__dirname);
const PLATFORM = `${process.platform}-${process.arch}`;

/** The addon that was built here, or the one that came with the package. */
function addonPath() {
  const tried = [
    path.join(PACKAGE, "build", "iokernel.node"),
    path.join(PACKAGE, "prebuilds", PLATFORM, "iokernel.node"),
  ];
  const found = tried.find(fs.existsSync);
  if (found) return found;
  throw new Error(
    `iokernel: no addon for ${PLATFORM} (${tried.join(", ")}): build it with ` +
      `\`node ${path.join(PACKAGE, "scripts", "build.js")}\`, which needs a C compiler`,
  );
}

/** The source tree that this package lies in, if it does. */
function sourceTree() {
  const root = path.resolve(PACKAGE, "..", "..");
  return fs.existsSync(path.join(root, "Cargo.toml")) ? root : null;
}

/** `IOKERNEL_LIBRARY`, the one that came with the package, or the source tree's. */
function libraryPath() {
  const given = process.env.IOKERNEL_LIBRARY;
  if (given) {
    if (fs.existsSync(given)) return given;
    throw new Error(`IOKERNEL_LIBRARY: "${given}": expected the path of ${NAME}`);
  }
  const tried = [path.join(PACKAGE, "prebuilds", PLATFORM, NAME)];
  const tree = sourceTree();
  if (tree) tried.push(path.join(process.env.CARGO_TARGET_DIR || path.join(tree, "target"), "release", NAME));
  const found = tried.find(fs.existsSync);
  if (found) return found;
  throw new Error(
    `${NAME} was not found (${tried.join(", ")}): build it with \`cargo build --release\`, ` +
      "or set IOKERNEL_LIBRARY to its path",
  );
}

function load() {
  const addon = require(addonPath());
  const library = libraryPath();
  const version = addon.load(library);
  if (version === ABI_VERSION) return addon;
  throw new Error(
    typeof version === "string"
      ? `${library}: cannot be loaded: ${version}`
      : `${library}: ABI version ${version}: expected ${ABI_VERSION}, as this binding was made for`,
  );
}

module.exports = { addon: load(), libraryPath };
