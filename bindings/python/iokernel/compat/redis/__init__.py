"""redis-py over the kernel: one line changes, the program stays.

    import redis
    from iokernel.compat.redis import ConnectionPool

    cache = redis.Redis(connection_pool=ConnectionPool.from_url("redis://cache.internal/0"))

`iokernel.compat.redis.asyncio` has the same for `redis.asyncio`. Commands, pipelines, transactions, scripts and
pub/sub of all threads share one connection that lives in the I/O thread. docs/compat-redis.md says what differs.
"""

from ._connection import Connection
from ._pool import BlockingConnectionPool, ConnectionPool

__all__ = ["BlockingConnectionPool", "Connection", "ConnectionPool"]
