"""What the differential tests of HTTP clients play in: two scripted servers, a proxy, and what does not answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from .http_answers import Outcome, answers, seen
from .http_script import HttpScript
from .requests_scenarios import Place, hole
from .tunnels import Tunnels


@dataclass
class Scene:
    place: Place
    server: HttpScript
    other: HttpScript

    def begin(self) -> None:
        """Before each play: both servers have their script, and have seen nothing."""
        self.server.answers(answers(self.other.address))
        self.server.forget()
        self.other.forget()

    def outcome(self, result: Any) -> Outcome:
        """What a play came to, and what the servers saw of it."""
        return Outcome(result, (*seen(self.server.asked()), "and elsewhere", *seen(self.other.asked())))


@contextmanager
def scene() -> Iterator[Scene]:
    proxies = {name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy", "no_proxy")}
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ))
        for name in proxies:
            del os.environ[name]
        other = stack.enter_context(HttpScript())
        server = stack.enter_context(HttpScript())
        tunnels = stack.enter_context(Tunnels())
        url, held = hole()
        for one in held:
            stack.callback(one.close)
        yield Scene(Place(server.url, other.url, "http://127.0.0.1:1", url, tunnels.address), server, other)
