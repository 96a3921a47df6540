"""https with and without the kernel: what is believed, what is refused, and how users of requests and httpx see it."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import iokernel
import iokernel.compat.httpx
import iokernel.compat.requests
import iokernel.http
import pytest
import requests
from support import net
from support.certs import Authority
from support.fixtures import or_skip
from support.nginx import Nginx
from support.tunnels import Tunnels

SERVER = """
    location / {{ return 200 "hello"; }}
    listen 127.0.0.1:{tls_port} ssl; ssl_certificate {cert}; ssl_certificate_key {cert};
    ssl_client_certificate {ca}; ssl_verify_client optional;
    location /who {{ return 200 $ssl_client_verify; }}
"""


@dataclass
class Site:
    url: str
    expired: str
    ca: str
    client: str
    tunnels: Tunnels


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with ExitStack() as stack:
        authority = stack.enter_context(Authority())

        def serve(cert: str) -> str:
            port = net.free_port()
            stack.enter_context(or_skip(Nginx)(SERVER.format(tls_port=port, cert=cert, ca=authority.ca)))
            return f"https://localhost:{port}"

        good, bad = authority.issue("localhost"), authority.issue("localhost", expired=True, name="expired")
        client = authority.issue("client.test", name="client")
        yield Site(serve(good), serve(bad), authority.ca, client, stack.enter_context(Tunnels()))


def outcome(do: Callable[[], Any]) -> Any:
    try:
        return do()
    except Exception as error:
        return type(error)


def of_requests(make: Callable[[], Any], site: Site) -> list[Any]:
    with make() as session:
        return [
            outcome(lambda: session.get(site.url, verify=site.ca).text),
            outcome(lambda: session.get(site.url, verify=False).text),
            outcome(lambda: session.get(site.url).text),
            outcome(lambda: session.get(site.url.replace("localhost", "127.0.0.1"), verify=site.ca).text),
            outcome(lambda: session.get(site.expired, verify=site.ca).text),
            outcome(lambda: session.get(site.url + "/who", verify=site.ca).text),
            outcome(lambda: session.get(site.url + "/who", verify=site.ca, cert=site.client).text),
            outcome(lambda: session.get(site.url, verify="/nonexistent").text),
            outcome(lambda: session.get(site.url, verify=site.ca, proxies=through(site, "http")).text),
            outcome(lambda: session.get(site.url, verify=site.ca, proxies=through(site, "socks5h")).text),
            outcome(lambda: session.get(site.url, verify=site.ca, proxies={"https": "http://127.0.0.1:1"}).text),
        ]


def through(site: Site, scheme: str) -> dict[str, str]:
    return {"https": f"{scheme}://{site.tunnels.address}"}


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_requests(site: Site) -> None:
    expected = of_requests(requests.Session, site)
    tunnelled = site.tunnels.asked()
    site.tunnels.forget()
    assert of_requests(iokernel.compat.requests.Session, site) == expected
    assert expected[0] == expected[1] == expected[8] == expected[9] == "hello"
    assert expected[5:7] == ["NONE", "SUCCESS"]
    assert set(site.tunnels.asked()) == set(tunnelled), "each library opens as many tunnels as it likes"


def of_httpx(make: Callable[..., httpx.Client], site: Site, context: Callable[[str], Any]) -> list[Any]:
    out = []
    proxy = f"http://{site.tunnels.address}"
    for url, options in (
        (site.url, {"verify": context(site.ca)}),
        (site.url, {"verify": False}),
        (site.url, {}),
        (site.url.replace("localhost", "127.0.0.1"), {"verify": context(site.ca)}),
        (site.expired, {"verify": context(site.ca)}),
        (site.url, {"verify": context(site.ca), "proxy": proxy}),
        (site.url, {"verify": context(site.ca), "proxy": "http://127.0.0.1:1"}),
    ):

        def get(url: str = url, options: dict[str, Any] = options) -> str:
            with make(**options) as client:
                return client.get(url).text

        out.append(outcome(get))
    return out


def test_httpx(site: Site) -> None:
    expected = of_httpx(httpx.Client, site, lambda ca: ssl.create_default_context(cafile=ca))
    assert of_httpx(iokernel.compat.httpx.Client, site, lambda ca: ca) == expected
    assert expected[0] == expected[1] == expected[5] == "hello"


async def test_httpx_in_a_loop(site: Site) -> None:
    async with iokernel.compat.httpx.AsyncClient(verify=site.ca, cert=site.client) as client:
        assert (await client.get(site.url + "/who")).text == "SUCCESS"
    with pytest.raises(TypeError, match=r"ssl\.SSLContext"):
        iokernel.compat.httpx.AsyncClient(verify=ssl.create_default_context())


def test_an_endpoint(site: Site) -> None:
    with iokernel.http.open(site.url, tls_ca=site.ca) as api:
        assert [api.get("/").text for _ in range(3)] == ["hello"] * 3
        with api.stream("GET", "/") as reply:
            assert reply.read() == b"hello"
    with iokernel.http.open(site.url, when_down="fail") as api, pytest.raises(iokernel.Error, match="TLS with"):
        api.get("/")
