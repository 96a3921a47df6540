import { Endpoint, Kernel, Lease, open } from "iokernel";

const cache = open("redis://cache");
cache.call("GET", () => 5); // wrong
cache.call("GET", Symbol("x")); // wrong
cache.with({ timeOut: 5 }); // wrong
cache.with({ route: "text" }); // wrong
new Endpoint(); // wrong
new Lease(); // wrong
open(5); // wrong
new Kernel().gauge("x", { merge: "average" }); // wrong
cache.lease("options"); // wrong
