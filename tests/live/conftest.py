"""The fixtures of the live tests."""

from support.fixtures import (  # noqa: F401
    free_port,
    make_fake,
    make_proxy,
    make_redis_server,
    proxy,
    redis_server,
    shared_redis_server,
)
