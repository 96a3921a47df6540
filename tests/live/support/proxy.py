"""A proxy that does to a connection what a bad network, or a bad peer, would. Runs in a process of its own."""

from __future__ import annotations

from typing import Any, Literal

from .process import Worker

End = Literal["close", "reset"]
Side = Literal["client", "server"]
Mode = Literal["forward", "silent", "http", "drop"]


class Proxy:
    """Stands before `upstream` (`host:port` or `unix:/path`); programs connect to `address`.

    `to_server(...)` and `to_client(...)` set the rules of one direction, for conns that are open and those to come;
    each call replaces all earlier rules of that direction, a call without arguments clears them:

    ===============  ===================================================================================================
    delay_ms         each piece arrives so much later; throughput is not limited
    jitter_ms        each piece arrives up to so much later than that, at random; the order is kept
    split            pieces of so many bytes, each written by a call of its own
    chop             pieces of random sizes from 1 to so many bytes
    gap_ms           time between two pieces
    coalesce_ms      gathers for so long, then writes all at once
    corrupt_at       inverts the byte at this offset of each conn's stream
    cut_at           forwards so many bytes of each conn, then ends it as `cut_how` says
    cut_how          "close" (default), "reset" (RST), "half" (FIN in this direction only), "silence"
    hold             a black hole: nothing passes, also no end of stream, until the rule is cleared
    ===============  ===================================================================================================

    Random choices come from `seed`, so that a failing run can be repeated.
    """

    def __init__(self, upstream: str, *, listen: str = "127.0.0.1:0", seed: int = 1) -> None:
        self._worker = Worker("proxy_worker", {"upstream": upstream, "listen": listen, "seed": seed})

    @property
    def address(self) -> str:
        return self._worker.address

    def to_server(self, **rules: Any) -> None:
        self._worker.ask("rules", direction="to_server", rules=rules)

    def to_client(self, **rules: Any) -> None:
        self._worker.ask("rules", direction="to_client", rules=rules)

    def both(self, **rules: Any) -> None:
        self.to_server(**rules)
        self.to_client(**rules)

    def clear(self) -> None:
        self.both()

    def mode(self, mode: Mode) -> None:
        """What becomes of conns to come: forwarded, accepted and never answered, answered in HTTP, closed at once."""
        self._worker.ask("mode", mode=mode)

    def listen(self, on: bool) -> None:
        """False: connecting is refused. True: again on the same address."""
        self._worker.ask("listen", on=on)

    def upstream(self, address: str) -> None:
        """Conns to come go elsewhere, as after a change of DNS."""
        self._worker.ask("upstream", address=address)

    def end(self, how: End = "close") -> None:
        """Ends every open conn, on both sides: "close" (FIN) or "reset" (RST)."""
        self._worker.ask("end", how=how)

    def half_close(self, side: Side) -> None:
        """FIN towards one side of every open conn; the other direction stays open."""
        self._worker.ask("half_close", side=side)

    def stats(self) -> dict[str, int]:
        """accepted, open, failed (upstream refused), bytes_to_server, bytes_to_client, writes_to_*; since the start."""
        counts: dict[str, int] = self._worker.ask("stats")
        return counts

    def close(self) -> None:
        self._worker.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
