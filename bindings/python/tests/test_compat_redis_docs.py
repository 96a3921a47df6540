"""The examples of docs/compat-redis.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.servers import RedisServer

PAGE = Path(__file__).parents[3] / "docs" / "compat-redis.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_runs(shared_redis_server: RedisServer, example: str) -> None:
    exec(compile(example, str(PAGE), "exec"), {"url": shared_redis_server.url})
