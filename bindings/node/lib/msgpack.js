"use strict";

/**
 * msgpackr, a copy of the module for us alone: the extensions that it knows, and the memory that it writes to, are the
 * module's, and the program may use it too. It is the build without native code and without `eval`.
 */

function loadOwn(name) {
  const path = require.resolve(name);
  const others = require.cache[path];
  delete require.cache[path];
  const own = require(name);
  if (others) require.cache[path] = others;
  else delete require.cache[path];
  return own;
}

module.exports = loadOwn("msgpackr/index-no-eval");
