"""The fixtures of the live tests."""

from support.fixtures import (  # noqa: F401
    bind,
    cluster,
    free_port,
    make_counter,
    make_fake,
    make_proxy,
    make_redis_server,
    namespace,
    postgres_server,
    proxy,
    redis_server,
    sentinel_set,
    shared_cluster,
    shared_postgres_server,
    shared_redis_server,
)
