"""Messages of HTTP/1.1 that readers take apart differently, each by the section that decides about it (of RFC 9112,
where no other is named).

`T` stands for the target of the case itself, `S` for one that nobody asked for: a request within another one, by which
whoever reads it so was deceived. In responses `P` stands for what must answer no request.
"""

from __future__ import annotations

from dataclasses import dataclass

HOST = "Host: a\r\n"
INNER = f"GET S HTTP/1.1\r\n{HOST}\r\n"
POST = f"POST T HTTP/1.1\r\n{HOST}"
GET = f"GET T HTTP/1.1\r\n{HOST}"
CHUNKED = "Transfer-Encoding: chunked\r\n"


@dataclass(frozen=True)
class Case:
    section: str
    name: str
    wire: str
    """Latin-1."""
    expected: int | list[str]
    """The status of a refusal, or what is read: `METHOD body` of each request."""

    def __str__(self) -> str:
        return f"{self.section}: {self.name}"


def length(body: str) -> str:
    return f"Content-Length: {len(body)}\r\n\r\n{body}"


REQUESTS = [
    # What is right.
    Case("3", "a request", GET + "\r\n", ["GET "]),
    Case("6.2", "a length", POST + length("hello"), ["POST hello"]),
    Case("6.2", "a request as body", POST + length(INNER), [f"POST {INNER}"]),
    Case("7.1", "chunks", POST + CHUNKED + "\r\n5\r\nhello\r\n0\r\n\r\n", ["POST hello"]),
    Case(
        "7.1", "a request as a chunk", POST + CHUNKED + f"\r\n{len(INNER):x}\r\n{INNER}\r\n0\r\n\r\n", [f"POST {INNER}"]
    ),
    Case("7.1.1", "extensions", POST + CHUNKED + '\r\n5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n', ["POST hello"]),
    Case("7.1", "zeros before a size", POST + CHUNKED + "\r\n0005\r\nhello\r\n000\r\n\r\n", ["POST hello"]),
    Case("7.1", "a size in capitals", POST + CHUNKED + "\r\nA\r\nhellohello\r\n0\r\n\r\n", ["POST hellohello"]),
    Case("7.1.2", "trailers", POST + CHUNKED + "\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n", ["POST hello"]),
    Case("6.1", "chunked in capitals", POST + "Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", ["POST "]),
    Case("2.2", "empty lines first", "\r\n\r\n" + GET + "\r\n", ["GET "]),
    Case("9.3.2", "two", GET + "\r\n" + POST + length("hello"), ["GET ", "POST hello"]),
    Case("3.2.2", "a URL as target", f"GET http://aT HTTP/1.1\r\n{HOST}" + "\r\n", ["GET "]),
    Case("9110, 5.5", "white space around a value", POST + "Content-Length: \t5 \t\r\n\r\nhello", ["POST hello"]),
    Case("9110, 8.6", "a length of GET", GET + length("hello"), ["GET hello"]),
    # Where a message ends.
    Case("6.1", "a length and chunks", POST + CHUNKED + "Content-Length: 5\r\n\r\n0\r\n\r\n" + INNER, 400),
    Case("6.1", "chunks and a length", POST + f"Content-Length: 5\r\n{CHUNKED}\r\n0\r\n\r\n" + INNER, 400),
    Case("6.3", "two lengths", POST + "Content-Length: 0\r\nContent-Length: 50\r\n\r\n" + INNER, 400),
    Case("6.3", "two lengths the other way", POST + "Content-Length: 50\r\nContent-Length: 0\r\n\r\n" + INNER, 400),
    Case("6.3", "the same length twice", POST + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    Case("6.3", "a list of lengths", POST + "Content-Length: 0, 50\r\n\r\n" + INNER, 400),
    Case("6.3", "a list of one length", POST + "Content-Length: 5, 5\r\n\r\nhello", 400),
    *(
        Case("9110, 8.6", f"a length of {text!r}", POST + f"Content-Length: {text}\r\n\r\nhello{INNER}", 400)
        for text in ("+5", "-1", "0x5", "5 5", "5;", "5.0", "", "five", "\xb2", "5\x0b", "1e1", "5,")
    ),
    Case("9110, 8.6", "a length beyond all", POST + "Content-Length: 99999999999999999999\r\n\r\n" + INNER, 413),
    Case("9110, 8.6", "a length that wraps", POST + f"Content-Length: {2**64 + 5}\r\n\r\nhello{INNER}", 413),
    *(
        Case("6.1", f"a coding of {text!r}", POST + f"Transfer-Encoding: {text}\r\n\r\n0\r\n\r\n{INNER}", 400)
        for text in (
            "xchunked",
            "chunked, identity",
            "identity",
            "chunked, chunked",
            "",
            "gzip",
            "chunked;a=b",
            "\x0bchunked",
            "chunked\x00",
            '"chunked"',
            "chunked\x0c",
        )
    ),
    Case("6.1", "a coding before chunked", POST + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + INNER, 501),
    Case("6.1", "chunked twice", POST + CHUNKED + CHUNKED + "\r\n0\r\n\r\n" + INNER, 400),
    Case("6.1", "chunks and something else", POST + CHUNKED + "Transfer-Encoding: x\r\n\r\n0\r\n\r\n" + INNER, 400),
    Case("6.1", "chunks of HTTP/1.0", f"POST T HTTP/1.0\r\n{CHUNKED}\r\n0\r\n\r\n{INNER}", 400),
    Case("5.1", "a space before the colon", POST + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + INNER, 400),
    Case("5.1", "a space within the name", POST + "Transfer Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER, 400),
    Case("5.1", "a tab before the colon", POST + "Content-Length\t: 5\r\n\r\nhello" + INNER, 400),
    Case("5.1", "no name", POST + ": x\r\n\r\n", 400),
    Case("5.1", "no colon", POST + "Content-Length\r\n\r\n" + INNER, 400),
    Case("5.1", "a vertical tab in a name", POST + "\x0bTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER, 400),
    Case("5.1", "a byte beyond ASCII in a name", POST + "Transfer-Encoding\xff: chunked\r\n\r\n0\r\n\r\n" + INNER, 400),
    Case("5.2", "a value on two lines", POST + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + INNER, 400),
    Case("5.2", "a length on two lines", POST + "Content-Length: 5\r\n 0\r\n\r\nhello" + INNER, 400),
    Case("2.2", "white space before the first field", f"GET T HTTP/1.1\r\n {CHUNKED}{HOST}\r\n0\r\n\r\n", 400),
    Case("2.2", "a bare LF", f"POST T HTTP/1.1\n{HOST}{CHUNKED}\r\n0\r\n\r\n{INNER}", 400),
    Case("2.2", "a bare LF behind a field", POST + "A: b\nContent-Length: 5\r\n\r\nhello" + INNER, 400),
    Case("2.2", "a bare CR behind a field", POST + "A: b\rContent-Length: 5\r\n\r\nhello" + INNER, 400),
    Case("2.2", "a bare LF as the last line", POST + "Content-Length: 5\r\n\nhello" + INNER, 400),
    Case("2.2", "a NUL in a value", POST + "A: \x00\r\n\r\n", 400),
    Case("2.2", "two CRs", POST + "Content-Length: 5\r\r\n\r\nhello" + INNER, 400),
    # Chunks.
    *(
        Case("7.1", f"a size of {text!r}", POST + CHUNKED + f"\r\n{text}\r\nhello\r\n0\r\n\r\n{INNER}", 400)
        for text in ("0x5", "+5", "-5", "5 5", " 5", "", "g", "5,", "5\x00", "\x0b5", "5\xa0", "\t5", "5 x")
    ),
    Case("7.1", "a size that wraps", POST + CHUNKED + "\r\n10000000000000005\r\nhello\r\n0\r\n\r\n" + INNER, 400),
    Case("7.1", "a chunk that is longer", POST + CHUNKED + "\r\n5\r\nhelloo\r\n0\r\n\r\n" + INNER, 400),
    Case("7.1", "no CRLF behind a chunk", POST + CHUNKED + "\r\n5\r\nhello0\r\n\r\n" + INNER, 400),
    Case("7.1", "an LF behind a size", POST + CHUNKED + "\r\n5\nhello\r\n0\r\n\r\n" + INNER, 400),
    Case("7.1", "an LF behind a chunk", POST + CHUNKED + "\r\n5\r\nhello\n0\r\n\r\n" + INNER, 400),
    Case("7.1", "a CR behind a chunk", POST + CHUNKED + "\r\n5\r\nhello\r0\r\n\r\n" + INNER, 400),
    Case("7.1", "an LF behind the last size", POST + CHUNKED + "\r\n0\n\r\n" + INNER, 400),
    Case("7.1.1", "an LF in an extension", POST + CHUNKED + "\r\n5;a\nb\r\nhello\r\n0\r\n\r\n" + INNER, 400),
    Case("7.1.1", "a CR in an extension", POST + CHUNKED + "\r\n5;a\rb\r\nhello\r\n0\r\n\r\n" + INNER, 400),
    Case("7.1.1", "a NUL in an extension", POST + CHUNKED + "\r\n5;\x00\r\nhello\r\n0\r\n\r\n" + INNER, 400),
    Case("7.1.2", "a bare LF in trailers", POST + CHUNKED + "\r\n0\r\nA: b\n\r\n" + INNER, 400),
    Case("7.1.2", "no colon in trailers", POST + CHUNKED + "\r\n0\r\nA\r\n\r\n" + INNER, 400),
    # Lines and hosts.
    Case("3", "two spaces", f"GET  T HTTP/1.1\r\n{HOST}\r\n", 400),
    Case("3", "a tab", f"GET\tT HTTP/1.1\r\n{HOST}\r\n", 400),
    Case("3", "a space behind", f"GET T HTTP/1.1 \r\n{HOST}\r\n", 400),
    Case("3", "no version", f"GET T\r\n{HOST}\r\n", 400),
    Case("2.3", "no version that we speak", f"GET T HTTP/2.0\r\n{HOST}\r\n", 505),
    Case("2.3", "a version in small letters", f"GET T http/1.1\r\n{HOST}\r\n", 400),
    Case("2.3", "a version of two digits", f"GET T HTTP/1.10\r\n{HOST}\r\n", 400),
    Case("3.1", "a method that is none", f"G(ET T HTTP/1.1\r\n{HOST}\r\n", 400),
    Case("3.2", "a space in the target", f"GET T x HTTP/1.1\r\n{HOST}\r\n", 400),
    Case("3.2", "a control character in the target", f"GET T\x01 HTTP/1.1\r\n{HOST}\r\n", 400),
    Case("3.2", "a fragment in the target", f"GET T#x HTTP/1.1\r\n{HOST}\r\n", 400),
    Case("3.2", "no Host", "GET T HTTP/1.1\r\n\r\n", 400),
    Case("3.2", "two Hosts", GET + "Host: b\r\n\r\n", 400),
    Case("3.2", "a Host that is none", "GET T HTTP/1.1\r\nHost: a/b@c\r\n\r\n", 400),
    Case("3.2", "a list of Hosts", "GET T HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    Case("3.2.4", "an asterisk of GET", f"GET * HTTP/1.1\r\n{HOST}\r\n", 400),
    Case("9110, 10.1.1", "an expectation that nobody knows", POST + "Expect: magic\r\nContent-Length: 0\r\n\r\n", 417),
]

POISON = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nP"
LENGTH_5 = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"
CHUNKS = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


@dataclass(frozen=True)
class Response:
    section: str
    name: str
    wire: str
    expected: str | None
    """`STATUS body`, or None where there is no way to read it."""
    method: str = "GET"
    ends: bool = False
    """The server ends the connection behind it."""

    def __str__(self) -> str:
        return f"{self.section}: {self.name}"


RESPONSES = [
    # What is right, and what others leave behind it.
    Response("6.2", "a length", LENGTH_5 + "\r\nhello", "200 hello"),
    Response("6.2", "another response behind it", LENGTH_5 + "\r\nhello" + POISON, "200 hello"),
    Response("6.3", "a body of 204", "HTTP/1.1 204 None\r\n\r\n" + POISON, "204 "),
    Response("6.3", "a length of 204", f"HTTP/1.1 204 None\r\nContent-Length: {len(POISON)}\r\n\r\n{POISON}", "204 "),
    Response("6.3", "a body of 304", f"HTTP/1.1 304 Same\r\nContent-Length: {len(POISON)}\r\n\r\n{POISON}", "304 "),
    Response(
        "6.3", "chunks of 304", "HTTP/1.1 304 Same\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + POISON, "304 "
    ),
    Response("6.3", "a body to HEAD", f"HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n{POISON}", "200 ", method="HEAD"),
    Response("6.3", "chunks to HEAD", f"{CHUNKS}\r\n1\r\nx\r\n0\r\n\r\n{POISON}", "200 ", method="HEAD"),
    Response("6.2", "more than the length", LENGTH_5 + "\r\nhello world" + POISON, "200 hello"),
    Response("6.2", "a length of nothing", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + POISON, "200 "),
    Response("7.1", "something behind the chunks", CHUNKS + "\r\n1\r\nx\r\n0\r\n\r\n" + POISON, "200 x"),
    Response(
        "9110, 15.2",
        "interim responses",
        "HTTP/1.1 103 Hints\r\nA: b\r\n\r\n" * 3 + LENGTH_5 + "\r\nhello",
        "200 hello",
    ),
    Response("6.3", "until the end", "HTTP/1.1 200 OK\r\n\r\nhello", "200 hello", ends=True),
    Response(
        "6.3",
        "until the end, of HTTP/1.0",
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nhello",
        "200 hello",
        ends=True,
    ),
    Response("9.6", "the last one", LENGTH_5 + "Connection: close\r\n\r\nhello" + POISON, "200 hello"),
    # What cannot be read in one way alone.
    Response("6.3", "a length and chunks", CHUNKS + "Content-Length: 5\r\n\r\n0\r\n\r\n" + POISON, None),
    Response("6.3", "two lengths", LENGTH_5 + "Content-Length: 6\r\n\r\nhello " + POISON, None),
    *(
        Response(
            "9110, 8.6",
            f"a length of {text!r}",
            f"HTTP/1.1 200 OK\r\nContent-Length: {text}\r\n\r\nhello{POISON}",
            None,
        )
        for text in ("+5", "-1", "0x5", "5 5", "5.0", "", "five", str(2**64 + 5), "5, 6")
    ),
    *(
        Response(
            "6.1",
            f"a coding of {text!r}",
            f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {text}\r\n\r\n0\r\n\r\n{POISON}",
            None,
        )
        for text in ("xchunked", "chunked, identity", "chunked, chunked", "", "chunked;a=b")
    ),
    *(
        Response("7.1", f"a size of {text!r}", CHUNKS + f"\r\n{text}\r\nhello\r\n0\r\n\r\n" + POISON, None)
        for text in ("0x5", "+5", "-5", " 5", "", "g", "10000000000000005", "5\x00")
    ),
    Response("7.1", "a chunk that is longer", CHUNKS + "\r\n5\r\nhelloo\r\n0\r\n\r\n" + POISON, None),
    Response("7.1", "an LF behind a size", CHUNKS + "\r\n5\nhello\r\n0\r\n\r\n" + POISON, None),
    Response("8", "too short", LENGTH_5 + "\r\nhel", None, ends=True),
    Response("8", "chunks without an end", CHUNKS + "\r\n5\r\nhello\r\n", None, ends=True),
    Response(
        "6.1", "chunks of HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + POISON, None
    ),
    Response("5.1", "a space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello" + POISON, None),
    Response("2.2", "a bare LF", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello" + POISON, None),
    Response("5.2", "a value on two lines", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n" + length("hello"), None),
    Response("2.2", "a NUL in a value", "HTTP/1.1 200 OK\r\nA: \x00\r\n" + length("hello"), None),
    Response("4", "no status line", "hello\r\n\r\n" + POISON, None),
    Response("4", "a status of two digits", "HTTP/1.1 20 OK\r\n" + length("hello"), None),
    Response("4", "a status of four digits", "HTTP/1.1 2000 OK\r\n" + length("hello"), None),
    Response("2.3", "a version that we do not speak", "HTTP/2.0 200 OK\r\n" + length("hello"), None),
    Response(
        "9110, 7.8", "an upgrade that nobody asked for", "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n" + POISON, None
    ),
]
