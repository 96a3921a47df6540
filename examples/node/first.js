/**
 * First steps: one service, its connection shared by everybody who asks.
 *
 * $ node first.js redis://127.0.0.1:6379
 * hello
 * 300 tasks, one connection: 300 replies
 */

const { RemoteError, open } = require("iokernel");

// Returns at once. Names, the connection, its heartbeats: all of that lives in the I/O thread from here on.
const cache = open(process.argv[2] ?? "redis://127.0.0.1:6379");

async function main() {
  await cache.with({ timeout: 5 }).call("SET", "greeting", "hello");
  console.log(String(await cache.call("GET", "greeting")));

  // What one turn of the loop asks for goes in one call.
  const replies = await Promise.all(Array.from({ length: 300 }, () => cache.call("GET", "greeting")));
  const right = replies.filter((reply) => reply.toString() === "hello");
  console.log(`300 tasks, one connection: ${right.length} replies`);

  try {
    await cache.call("LPUSH", "greeting", "x");
  } catch (error) {
    if (!(error instanceof RemoteError && error.code === "WRONGTYPE")) throw error;
  }
  await cache.call("DEL", "greeting");
}

// Nothing is to be closed: the program ends when nothing is under way.
main();
