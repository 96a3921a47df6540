/**
 * A web server and a client of it, and a counter that can be read while the program hangs.
 *
 * $ node listener.js
 * 200 Hello, you!
 * 404 nothing is here
 * 2 requests were counted
 */

const { Kernel } = require("iokernel");

async function main() {
  const kernel = new Kernel({ name: "web-1" });
  const requests = kernel.counter("requests", { help: "Requests that were served." });
  const before = requests.value;

  const listener = kernel.listen("http://127.0.0.1:0", { health: "/healthz" });
  const serving = listener.serve(async ({ args: [[method, target]] }) => {
    requests.inc();
    const { pathname, searchParams } = new URL(target, listener.url);
    if (method !== "GET" || pathname !== "/hello") return [404, {}, "nothing is here"];
    return [200, { "Content-Type": "text/plain" }, `Hello, ${searchParams.get("name")}!`];
  });

  const api = kernel.open(listener.url);
  for (const target of ["/hello?name=you", "/nowhere"]) {
    const [status, , body] = await api.call("GET", target);
    console.log(status, String(body));
  }
  console.log(`${requests.value - before} requests were counted`);

  await listener.close({ drain: 1 });
  await serving;
  await kernel.close();
}

main();
