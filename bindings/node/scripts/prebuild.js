"use strict";

/**
 * Before `npm pack`: puts into the package what runs without a compiler. `IOKERNEL_LIBRARY`, or the source tree's
 * library, comes along.
 */

const fs = require("node:fs");
const path = require("node:path");
const { PACKAGE, PREBUILT, build } = require("./build");

const root = path.resolve(PACKAGE, "..", "..");
const target = process.env.CARGO_TARGET_DIR || path.join(root, "target");
const library = process.env.IOKERNEL_LIBRARY || path.join(target, "release", "libiokernel.so");

build(PREBUILT);
fs.copyFileSync(library, path.join(path.dirname(PREBUILT), "libiokernel.so"));
fs.mkdirSync(path.join(PACKAGE, "include"), { recursive: true });
fs.copyFileSync(path.join(root, "include", "iokernel.h"), path.join(PACKAGE, "include", "iokernel.h"));
