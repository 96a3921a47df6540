"""First steps: one service, called by a thread and awaited by tasks.

$ python first.py redis://127.0.0.1:6379
b'hello'
300 tasks, one connection: 300 replies
"""

import asyncio
import sys

import iokernel

# Returns at once. Names, the connection, its heartbeats: all of that lives in the I/O thread from here on.
cache = iokernel.open(sys.argv[1] if len(sys.argv) > 1 else "redis://127.0.0.1:6379")

cache.call("SET", "greeting", "hello", timeout=5)
print(cache.call("GET", "greeting"))


async def main() -> None:
    # The same endpoint inside asyncio. Everybody shares its connection.
    replies = await asyncio.gather(*(cache("GET", "greeting") for _ in range(300)))
    print(f"300 tasks, one connection: {replies.count(b'hello')} replies")


asyncio.run(main())

try:
    cache.call("LPUSH", "greeting", "x")
except iokernel.RemoteError as error:
    assert error.code == "WRONGTYPE"

cache.call("DEL", "greeting")
cache.close()
