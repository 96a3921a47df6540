"""requests over the kernel: sessions stay what they are, and what carries their requests is the kernel's.

session = requests.Session()
iokernel.compat.requests.install(session)       # or: session = iokernel.compat.requests.Session()
"""

from __future__ import annotations

from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_auth_from_url

from .urllib3 import PoolManager, ProxyManager, SOCKSProxyManager

__all__ = ["Adapter", "Session", "install"]


class Adapter(HTTPAdapter):
    """`requests.adapters.HTTPAdapter` over the kernel: `session.mount("http://", Adapter())`. The same arguments."""

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        self._pool_connections, self._pool_maxsize, self._pool_block = connections, maxsize, block
        self.poolmanager = PoolManager(num_pools=connections, maxsize=maxsize, block=block, **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = self.proxy_manager.get(proxy)
        if manager is None:
            options |= {
                "num_pools": self._pool_connections,
                "maxsize": self._pool_maxsize,
                "block": self._pool_block,
            }
            if proxy.lower().startswith("socks"):
                user, password = get_auth_from_url(proxy)
                manager = SOCKSProxyManager(proxy, username=user, password=password, **options)
            else:
                manager = ProxyManager(proxy, proxy_headers=self.proxy_headers(proxy), **options)
            self.proxy_manager[proxy] = manager
        return manager


def install(session: requests.Session, **options: Any) -> requests.Session:
    """Lets the kernel carry what a session sends; the session. `options` are the Adapter's."""
    for prefix in ("http://", "https://"):
        session.mount(prefix, Adapter(**options))
    return session


class Session(requests.Session):
    """`requests.Session` over the kernel."""

    def __init__(self) -> None:
        super().__init__()
        install(self)
