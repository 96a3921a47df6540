"""soak.py SECONDS [SEED]: traffic through a network that misbehaves, for as long as you like.

Tasks ask for echoes of words that occur once; whatever the network does, a reply is the word that was asked for, every
request ends once, nothing grows without a bound, and when the faults stop, everything works. Bounded in time and in
what is under way; loopback only.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import os
import random
import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "live"))

import iokernel
from support.process import Missing
from support.proxy import Proxy
from support.servers import RedisServer

TASKS = 50
MEMORY_GROWTH_MAX_KIB = 128 * 1024
FAULTS = [
    "delay",
    "chop",
    "split",
    "coalesce",
    "cut",
    "reset",
    "close",
    "half close",
    "hold",
    "refuse",
    "restart",
    "rest",
]


class Soak:
    def __init__(self, server: RedisServer, proxy: Proxy, seed: int) -> None:
        self.server, self.proxy = server, proxy
        self.dice = random.Random(seed)
        self.counts: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.running = True
        self.words = itertools.count()

    async def ask(self, endpoint: iokernel.Endpoint) -> None:
        while self.running:
            word = f"word {next(self.words)} ".encode() + b"." * self.dice.choice([0, 10, 1000, 100_000])
            try:
                reply = await asyncio.wait_for(endpoint("ECHO", word, timeout=2.0), 20)
            except iokernel.Error as error:
                self.counts[type(error).__name__] += 1
                await asyncio.sleep(0.01)
            else:
                self.counts["replied"] += 1
                if reply != word:
                    self.wrong.append(f"asked for {word[:30]!r}, got {reply!r:.60}")

    async def disturb(self, seconds: float) -> None:
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            await asyncio.to_thread(self.fault, self.dice.choice(FAULTS))
            await asyncio.sleep(self.dice.uniform(0.05, 0.4))
        await asyncio.to_thread(self.fault, "rest")

    def fault(self, name: str) -> None:
        """One fault; the rules of the one before are gone."""
        self.counts[f"fault: {name}"] += 1
        dice, proxy = self.dice, self.proxy
        proxy.clear()
        proxy.listen(False)
        proxy.listen(True)
        match name:
            case "delay":
                proxy.both(delay_ms=dice.uniform(1, 50), jitter_ms=dice.uniform(0, 50))
            case "chop" | "split":
                proxy.both(**{name: dice.randint(1, 2000)})
            case "coalesce":
                proxy.both(coalesce_ms=dice.uniform(1, 20))
            case "cut":
                proxy.to_client(cut_at=dice.randint(0, 3000), cut_how=dice.choice(["close", "reset", "silence"]))
                proxy.end()
            case "reset" | "close":
                proxy.end("reset" if name == "reset" else "close")
            case "half close":
                proxy.half_close(dice.choice(["client", "server"]))
            case "hold":
                proxy.both(hold=True)
            case "refuse":
                proxy.listen(False)
                proxy.end()
            case "restart":
                self.server.kill()
                self.server.start()


async def run(soak: Soak, seconds: float) -> None:
    options = {"heartbeat": "200ms", "max_silence": "500ms", "connect_timeout": "500ms", "max_backoff": "200ms"}
    async with iokernel.open(f"redis://{soak.proxy.address}", **options) as endpoint:
        await endpoint.ready(10)
        asking = [asyncio.create_task(soak.ask(endpoint)) for _ in range(TASKS)]
        await soak.disturb(seconds)
        soak.running = False
        await asyncio.gather(*asking)
        await endpoint.ready(10)
        if await endpoint("ECHO", "after", timeout=10) != b"after":
            soak.wrong.append("no echo after the faults")


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


def memory_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(seconds: float, seed: int) -> int:
    print(f"soak: {seconds:.0f} s, seed {seed}", flush=True)
    try:
        server = RedisServer()
    except Missing as missing:
        sys.exit(f"soak: {missing}")
    with server, Proxy(server.address, seed=seed) as proxy:
        soak = Soak(server, proxy, seed)
        asyncio.run(run(soak, min(seconds, 1)))  # what is made once, is made
        before = files(), memory_kib()
        soak.running = True
        asyncio.run(run(soak, seconds))
        grown_files, grown_kib = files() - before[0], memory_kib() - before[1]
    for name, count in sorted(soak.counts.items()):
        print(f"{count:9} {name}")
    print(f"{grown_files} more descriptors, {grown_kib} KiB more memory")
    if grown_files > 4 or grown_kib > MEMORY_GROWTH_MAX_KIB:
        soak.wrong.append("something leaks")
    print(*soak.wrong[:20], sep="\n")
    return 1 if soak.wrong or not soak.counts["replied"] else 0


if __name__ == "__main__":
    given = [*sys.argv[1:], "60"][:1] + sys.argv[2:3]
    sys.exit(main(float(given[0]), int(given[1]) if len(given) > 1 else random.randrange(1 << 30)))
