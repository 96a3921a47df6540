"""What clients say that their requests took while their program stalls, against an observer on the server's wire.

Each client is in a process of its own, asks a dozen requests at a time, and computes for 50 or 500 ms at a time in one
C call that holds the GIL. The error of each request is the difference to what the observer saw of the same request.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness import Bench, Row
from support.asker import quantile
from support.stalling import Client, Stalling

PEERS = {"iokernel asyncio": ("redis-py asyncio", "aiohttp"), "iokernel threads": ("redis-py threads",)}
# Requests of one run, by the milliseconds of a stall: a dozen for each stall.
COUNTS = {50: 240, 500: 48}


def rows(bench: Bench) -> list[Row]:
    made: list[Row] = []
    for stall_ms, count in COUNTS.items():
        clients = [*PEERS, *(peer for peers in PEERS.values() for peer in peers)]
        with Stalling(clients, stall_ms / 1000) as stalling:
            for _ in range(bench.runs):
                for name in stalling.found:
                    stalling.run(name, count)
            made += table(stall_ms, stalling.found)
    return made


def table(stall_ms: int, found: dict[str, Client]) -> Iterator[Row]:
    for name, peers in PEERS.items():
        what, ours = f"stalls of {stall_ms} ms, {name}", found[name]
        for peer in peers:
            yield row(f"{what}, stamps: {peer}", ours, found[peer], peer)
        yield histogram(f"{what}: p99 by its histogram", ours)


def row(budget: str, ours: Client, peer: Client, name: str) -> Row:
    return Row(
        f"{budget}: error of a request's latency, p99",
        str(ours.stamps),
        f"{peer.around} {name}",
        ours.stamps.error(0.99) * 1000,
        "ms",
        1.0,
        0.2,
        at_least=False,
        note=f"{len(ours.stamps.true)} requests; the time around our own calls is off as well: {ours.around}",
        samples={"ours": ours.stamps.samples(), "around": ours.around.samples(), "peer": peer.around.samples()},
    )


def histogram(budget: str, ours: Client) -> Row:
    """The true quantile lies within the bucket, or by so much outside of it."""
    low, high = ours.histogram(0.99)
    true = quantile(ours.stamps.true, 0.99)
    return Row(
        f"{budget}: outside of its bucket by",
        f"{low * 1000:.3g} to {high * 1000:.3g} ms",
        f"{true * 1000:.3g} ms seen",
        max(low - true, true - high, 0.0) * 1000,
        "ms",
        1.0,
        0.0,
        at_least=False,
    )
