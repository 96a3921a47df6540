"""Reads `tests/corpus`: bytes on the wire, and what each side must make of them. The form is told at the top of each file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .program import ROOT


@dataclass
class Case:
    title: str
    asked: str = "GET"
    """The method of the request that is answered so, and whether it asks for an upgrade."""
    wire: bytes = b""
    closes: bool = False
    """The server closes the connection behind it."""
    outcomes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return self.title


def requests() -> list[Case]:
    return read("http_requests.txt")


def responses() -> list[Case]:
    return read("http_responses.txt")


def read(name: str) -> list[Case]:
    cases: list[Case] = []
    for line in (ROOT / "tests" / "corpus" / name).read_text().splitlines():
        match line[:2], line[2:]:
            case "==", title:
                cases.append(Case(title.strip()))
            case "? ", asked:
                cases[-1].asked = asked
            case "> ", text:
                cases[-1].wire += unescaped(text)
            case "= ", outcome:
                cases[-1].outcomes.append(unescaped(outcome).decode("latin-1"))
            case "!", _:
                cases[-1].closes = True
            case "", _:
                pass
            case start, _ if start[0] != "#":
                raise ValueError(f"{line!r} is no line of a case")
    assert all(case.outcomes for case in cases)
    return cases


ESCAPES = {"r": "\r", "n": "\n", "t": "\t", "\\": "\\"}


def unescaped(text: str) -> bytes:
    r"""`\r`, `\xHH`, and `{TEXT*N}` for so many of it."""
    text = re.sub(r"\{([^}*]*)\*(\d+)\}", lambda found: found[1] * int(found[2]), text)
    plain = re.sub(r"\\(x..|.)", lambda found: ESCAPES.get(found[1]) or chr(int(found[1].removeprefix("x"), 16)), text)
    return plain.encode("latin-1")
