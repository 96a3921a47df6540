"use strict";

/** A redis-server of our own: on a free port, in a folder of its own, gone with us. */

const { spawn, spawnSync } = require("node:child_process");
const fs = require("node:fs");
const net = require("node:net");
const os = require("node:os");
const path = require("node:path");
const { setTimeout: sleep } = require("node:timers/promises");

const isInstalled = () => spawnSync("redis-server", ["--version"]).status === 0;

/** A port that nobody listens on. */
function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

function listens(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1");
    socket.on("connect", () => socket.destroy() && resolve(true));
    socket.on("error", () => resolve(false));
  });
}

class Redis {
  static async start(port) {
    const server = new Redis();
    server.port = port ?? (await freePort());
    server.folder = fs.mkdtempSync(path.join(os.tmpdir(), "iok-node-redis-"));
    await server.run();
    return server;
  }

  get url() {
    return `redis://127.0.0.1:${this.port}`;
  }

  async run() {
    const options = { port: this.port, bind: "127.0.0.1", dir: this.folder, save: "", loglevel: "warning" };
    const given = Object.entries({ ...options, "enable-debug-command": "yes" });
    const log = fs.openSync(path.join(this.folder, "log"), "a");
    this.child = spawn("redis-server", given.flatMap(([key, value]) => [`--${key}`, String(value)]), {
      stdio: ["ignore", log, log],
    });
    fs.closeSync(log);
    // Also where the tests end before their time.
    const { child } = this;
    process.once("exit", () => child.kill("SIGKILL"));
    const deadline = Date.now() + 10_000;
    while (!(await listens(this.port))) {
      if (Date.now() > deadline) throw new Error(fs.readFileSync(path.join(this.folder, "log"), "utf8"));
      await sleep(20);
    }
  }

  async kill() {
    if (!this.child) return;
    const ended = new Promise((resolve) => this.child.on("exit", resolve));
    this.child.kill("SIGKILL");
    await ended;
    this.child = null;
  }

  async stop() {
    await this.kill();
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}

module.exports = { Redis, freePort, isInstalled };
