"""What users of requests and urllib3 do, written down once: run with and without the kernel."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth, HTTPDigestAuth
from urllib3.util import Retry, Timeout

from .http_answers import BIG, TEXT, failure


@dataclass(frozen=True)
class Place:
    """Where scenarios happen. URLs have no slash at their end."""

    url: str
    other: str
    """Another origin."""
    closed: str
    """Nobody listens there."""
    hole: str
    """Connections to there are never answered."""
    tunnels: str
    """`host:port` of a proxy for CONNECT and SOCKS5."""


@dataclass(frozen=True)
class Kit:
    """The side of a run: requests' own parts, or ours."""

    session: Callable[[], Any]
    """Makes a requests.Session."""
    adapter: type[HTTPAdapter]
    pools: type[urllib3.PoolManager]
    proxies: type[urllib3.ProxyManager]


Scenario = Callable[[Kit, Place], Any]
SCENARIOS: dict[str, Scenario] = {}


def scenario(play: Scenario) -> Scenario:
    SCENARIOS[play.__name__] = play
    return play


def shown(reply: requests.Response) -> Any:
    return {
        "status": reply.status_code,
        "reason": reply.reason,
        "headers": sorted((name.lower(), value) for name, value in reply.headers.items()),
        "body": reply.content,
        "text": reply.text,
        "encoding": reply.encoding,
        "history": [one.status_code for one in reply.history],
        "cookies": sorted(reply.cookies.items()),
        "version": reply.raw.version,
        "url": reply.url.partition("//")[2].partition("/")[2],
    }


def tried(do: Callable[..., Any], *arguments: Any) -> Any:
    """What it gives, or the name of what it raises."""
    try:
        return do(*arguments)
    except Exception as error:
        return failure(error)


def get(*paths: str, **options: Any) -> Scenario:
    """GETs one after another, each on the conn that the one before has left."""

    def play(kit: Kit, place: Place) -> Any:
        with kit.session() as session:
            return [tried(lambda path: shown(session.get(place.url + path, **options)), path) for path in paths]

    return play


PLAIN = [
    "/hi",
    "/umlaut",
    "/empty",
    "/json",
    "/304",
    "/204",
    "/no-location",
    "/gzip",
    "/deflate",
    "/raw-deflate",
    "/br",
    "/zstd",
    "/two-codings",
    "/bad-gzip",
    "/gzip-chunked",
    "/chunked",
    "/trailers",
    "/until-close",
    "/http10",
    "/closing",
    "/big",
    "/big-chunked",
    "/reason",
    "/no-reason",
    "/500",
    "/100",
    "/103",
    "/cut-length",
    "/cut-chunked",
    "/cut-in-chunk",
    "/reset-body",
    "/cut-head",
    "/nothing",
    "/reset",
    "/garbage",
    "/ssh",
    "/bad-chunk",
    "/two-lengths",
    "/both-framings",
    "/bad-length",
    "/no-colon",
    "/huge-head",
    "/many-heads",
    "/relative",
    "/301",
    "/302",
    "/303",
    "/307",
    "/308",
    "/loop",
    "/away",
]
for path in PLAIN:
    SCENARIOS[f"get {path}"] = get(path, "/hi")
    SCENARIOS[f"stream {path}"] = get(path, stream=True)


@scenario
def methods(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        names = ("GET", "HEAD", "OPTIONS", "DELETE", "PUT", "POST", "PATCH", "PURGE")
        replies = [session.request(name, place.url + "/echo") for name in names]
        return [(reply.status_code, len(reply.content) > 0) for reply in replies]


@scenario
def head_then_get(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        return [shown(session.head(place.url + path)) for path in ("/big", "/chunked", "/302")] + [
            shown(session.get(place.url + "/hi"))
        ]


@scenario
def targets(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        session.get(place.url + "/ünï/cödé?q=ä b&c=%20")
        session.get(place.url + "/a b/%7Euser/..;x", params={"q": ["1", "ü"], "n": None, "e": ""})
        session.get(place.url)
        session.get(place.url + "?only=query#fragment")
    return None


@scenario
def headers(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        session.headers["X-Session"] = "1"
        mine = {"x-Case": "As It Is", "Accept": None, "User-Agent": "me", "X-Bytes": b"\xff", "X-Umlaut": "\xfc"}
        session.get(place.url + "/echo", headers=mine)
        session.get(place.url + "/echo", headers={"Host": "elsewhere.test", "Connection": "close"})
        session.get(place.url + "/echo", headers={"Accept-Encoding": "identity"})
        session.post(place.url + "/echo", headers={"Content-Type": "a/b", "Content-Length": "3"}, data=b"abc")
        session.post(place.url + "/echo", headers={"Expect": "100-continue"}, data=b"abc")
        bad = [{"X-A": "a\r\nY: b"}, {"X\nB": "a"}, {"X-C": " leading"}, {"X-D": 5}, {"": "x"}]
        return [tried(lambda one: session.get(place.url + "/echo", headers=one).status_code, one) for one in bad]


@scenario
def bodies(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        for data in ({"a": ["1", "ü"], "b": "x y"}, [("k", "v"), ("k", "w")], b"bytes", "täxt", bytearray(b"array")):
            session.post(place.url + "/echo", data=data)
        session.post(place.url + "/echo", json={"a": [1, None, "ü"]})
        session.post(place.url + "/echo", data=io.BytesIO(b"a file"))
        session.put(place.url + "/echo", data=iter([b"one", b"", b"two"]))
        session.put(place.url + "/echo", data=iter(()))
        session.put(place.url + "/echo", data=b"")
        session.post(place.url + "/echo")
        session.put(place.url + "/echo", data=Sized())
        return [tried(lambda: session.put(place.url + "/echo", data=failing()).status_code)]


class Sized:
    """A body that knows its length."""

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"abc", b"def"])


def failing() -> Iterator[bytes]:
    yield b"begun"
    raise RuntimeError("the program's own")


@scenario
def multipart(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        files = {"f": ("näme.txt", io.BytesIO(b"\x00\xff"), "a/b", {"X-Part": "1"}), "g": "text"}
        return session.post(place.url + "/echo", files=files, data={"field": "value"}).status_code


@scenario
def big_both_ways(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        reply = session.post(place.url + "/echo", data=(BIG[at : at + 7777] for at in range(0, len(BIG), 7777)))
        whole = session.post(place.url + "/big", data=BIG)
        return reply.status_code, whole.content == BIG


@scenario
def redirected_posts(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        for status in (301, 302, 303, 307, 308):
            session.post(f"{place.url}/{status}", data={"a": "b"})
        body = io.BytesIO(b"again")
        session.post(f"{place.url}/307", data=body)
        return tried(lambda: session.post(f"{place.url}/308", data=iter([b"once"])).status_code)


@scenario
def authorization_stays_home(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        session.get(place.url + "/away", auth=("user", "secret"))
        session.get(place.url + "/302", auth=("user", "secret"))
        return session.get(place.url + "/away", headers={"Authorization": "Bearer x", "Cookie": "a=b"}).status_code


@scenario
def authentication(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        session.get(place.url + "/basic", auth=HTTPBasicAuth("ü", "p:w"))
        with_user = place.url.replace("http://", "http://us%40er:pass@")
        session.get(with_user + "/echo")
        return shown(session.get(place.url + "/digest", auth=HTTPDigestAuth("user", "secret")))


@scenario
def cookies(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        session.get(place.url + "/cookies")
        session.get(place.url + "/echo")
        session.get(place.url + "/cookie-redirect", cookies={"mine": "x"})
        return sorted(session.cookies.items())


@scenario
def too_many_redirects(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        session.max_redirects = 3
        no = session.get(place.url + "/302", allow_redirects=False)
        return tried(lambda: session.get(place.url + "/loop")), no.status_code, no.next and no.next.method


@scenario
def lines(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        reply = session.get(place.url + "/lines", stream=True)
        return list(reply.iter_lines()), reply.raw.closed


@scenario
def pieces(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        sizes: list[Any] = []
        for path in ("/big", "/big-chunked", "/gzip", "/gzip-chunked"):
            reply = session.get(place.url + path, stream=True)
            parts = list(reply.iter_content(10_000))
            sizes.append((len(b"".join(parts)), max(map(len, parts)) <= 10_000))
            sizes.append(tried(lambda it: len(it.content), reply))
        whole = b"".join(session.get(place.url + "/chunked", stream=True).iter_content(None))
        return sizes, len(whole)


@scenario
def partly_read(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        reply = session.get(place.url + "/big", stream=True)
        first = next(reply.iter_content(1000))
        reply.close()
        with session.get(place.url + "/big-chunked", stream=True) as other:
            second = other.raw.read(10)
        return first == BIG[:1000], second == BIG[:10], session.get(place.url + "/hi").content


@scenario
def raw(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        out: list[Any] = []
        reply = session.get(place.url + "/gzip", stream=True)
        out += [len(reply.raw.read(10)), reply.raw.tell(), reply.raw.closed, reply.raw.length_remaining]
        out += [reply.raw.read(decode_content=False)[:3], reply.raw.closed, reply.raw.read(5)]
        reply = session.get(place.url + "/gzip", stream=True)
        out += [reply.raw.read(7, decode_content=True), reply.raw.headers.get("content-encoding"), reply.raw.reason]
        reply = session.get(place.url + "/deflate", stream=True)
        out.append(b"".join(reply.raw.stream(100, decode_content=True)) == TEXT)
        reply = session.get(place.url + "/chunked", stream=True)
        out += [b"".join(reply.raw.read_chunked(1000)) == b"one" + b"two" * 1000 + b"three", reply.raw.chunked]
        reply = session.get(place.url + "/hi", stream=True)
        out += [reply.raw.getheaders() if hasattr(reply.raw, "getheaders") else 0, reply.raw.version_string]
        out += [tried(lambda: list(reply.raw.read_chunked())), reply.raw.data, reply.raw.isclosed()]
        reply = session.get(place.url + "/big", stream=True)
        buffer = bytearray(100)
        out += [reply.raw.readinto(buffer), bytes(buffer) == BIG[:100], len(reply.raw.read1(50))]
        reply.raw.release_conn()
        reply.close()
        return out


@scenario
def timeouts(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        short = [
            lambda: session.get(place.url + "/late", timeout=0.2),
            lambda: session.get(place.url + "/stalls", timeout=(5, 0.2)),
            lambda: session.get(place.hole, timeout=0.3),
            lambda: session.get(place.hole, timeout=(0.3, 30)),
            lambda: session.get(place.url + "/late", timeout=Timeout(connect=5, read=0.2)),
            lambda: session.get(place.url + "/late", timeout=Timeout(total=0.2)),
            lambda: list(session.get(place.url + "/stalls", timeout=0.2, stream=True).iter_content(2)),
            lambda: session.get(place.url + "/hi", timeout=-1),
            lambda: session.get(place.url + "/hi", timeout=(1, 2, 3)),
            lambda: session.get(place.url + "/hi", timeout=30).content,
        ]
        return [tried(one) for one in short]


@scenario
def nobody_there(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        urls = [
            place.closed,
            "http://no-such-name.invalid/",
            "http://",
            "//x",
            "nope://x",
            "http://a b/",
            "http://[::1/",
        ]
        return [tried(lambda url: session.get(url), url) for url in urls]


@scenario
def replied_before_the_body(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        reply = session.post(place.url + "/unread-413", data=b"x" * 1000)
        return shown(reply)


@scenario
def retries(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        retry = Retry(total=3, status_forcelist=[503], backoff_factor=0, allowed_methods=None)
        session.mount("http://", kit.adapter(max_retries=retry))
        out: list[Any] = [session.get(place.url + "/503-503-200").content]
        out.append(tried(lambda: session.get(place.closed)))
        session.mount("http://", kit.adapter(max_retries=Retry(total=1, status_forcelist=[500], backoff_factor=0)))
        out.append(tried(lambda: session.get(place.url + "/500")))
        session.mount("http://", kit.adapter(max_retries=Retry(read=1, backoff_factor=0)))
        out.append(tried(lambda: session.get(place.url + "/nothing-then-200").content))
        out.append(tried(lambda: session.post(place.url + "/nothing", data=b"x").content))
        return out


@scenario
def proxies(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        through = {"http": place.url.replace("http://", "http://me:secret@")}
        out = [shown(session.get("http://far.test/x", proxies=through))]
        out.append(shown(session.get("http://far.test/away", proxies={"http": place.url})))
        out.append(tried(lambda: session.get("http://far.test/x", proxies={"http": place.closed})))
        out.append(tried(lambda: session.get("http://far.test/cut-head", proxies={"http": place.url}).status_code))
        for scheme in ("socks5", "socks5h"):
            socks = {"http": f"{scheme}://{place.tunnels}"}
            out.append(session.get(place.url + "/hi", proxies=socks).content)
        out.append(tried(lambda: session.get(place.closed, proxies={"http": f"socks5://{place.tunnels}"})))
        return out


@scenario
def connections_are_kept(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        for _ in range(20):
            session.get(place.url + "/hi")
        for _ in range(5):
            session.get(place.url + "/closing")
        return None


@scenario
def hooks_and_prepared(kit: Kit, place: Place) -> Any:
    with kit.session() as session:
        told: list[Any] = []
        prepared = session.prepare_request(requests.Request("POST", place.url + "/echo", data={"a": 1}))
        prepared.headers["X-Late"] = "1"
        reply = session.send(prepared)
        reply.raise_for_status()
        session.get(place.url + "/hi", hooks={"response": lambda reply, **_: told.append(reply.status_code)})
        return told, reply.elapsed.total_seconds() > 0


@scenario
def pool_manager(kit: Kit, place: Place) -> Any:
    with kit.pools(num_pools=2, maxsize=1, block=True) as pools:
        out: list[Any] = []
        reply = pools.request("GET", place.url + "/302", fields={"q": "1"})
        out += [reply.status, reply.data[:10], reply.geturl() is not None, reply.retries and len(reply.retries.history)]
        out.append(pools.request("POST", place.url + "/echo", json={"a": 1}).json()["method"])
        out.append(pools.request("POST", place.url + "/echo", fields={"f": ("n", b"x")}).status)
        out.append(
            pools.request(
                "POST", place.url + "/echo", body=b"x", headers={"User-Agent": urllib3.util.SKIP_HEADER}
            ).status
        )
        held = pools.request("GET", place.url + "/hi", preload_content=False)
        out.append(tried(lambda: pools.request("GET", place.url + "/hi", pool_timeout=0.2, retries=False)))
        held.drain_conn()
        held.release_conn()
        out.append(pools.request("GET", place.url + "/hi", pool_timeout=5).data)
        out.append(tried(lambda: pools.request("GET", place.closed, retries=False)))
        out.append(tried(lambda: pools.request("GET", place.url + "/late", timeout=0.2, retries=False)))
        out.append(tried(lambda: pools.request("GET", place.hole, timeout=Timeout(connect=0.2), retries=False)))
        out.append(tried(lambda: pools.request("GET", place.url + "/nothing", retries=False)))
        out.append(tried(lambda: pools.request("GET", place.url + "/cut-length", retries=False)))
        out.append(tried(lambda: pools.request("GE T", place.url + "/hi", retries=False)))
        out.append(tried(lambda: pools.urlopen("GET", place.url + "/loop", retries=Retry(redirect=2))))
        reply = pools.request("GET", place.url + "/lines", preload_content=False)
        out.append([line for line in reply])
        out.append(pools.request("GET", place.url + "/gzip").data == TEXT)
        return out


@scenario
def proxy_manager(kit: Kit, place: Place) -> Any:
    with kit.proxies(place.url, proxy_headers={"Proxy-Authorization": "Basic eDp5"}) as pools:
        return pools.request("GET", "http://far.test/x", headers={"X-Mine": "1"}).data


def hole() -> tuple[str, list[socket.socket]]:
    """A URL whose server never takes a connection up: its queue is full, and stays so while the sockets are held."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    address = listening.getsockname()
    held = [listening]
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(address)
        held.append(filler)
    return f"http://127.0.0.1:{address[1]}", held
