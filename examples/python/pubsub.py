"""Publish and subscribe: a subscription is iterated over, and shares the connection with requests.

$ python pubsub.py redis://127.0.0.1:6379
weather: sun
weather: rain
weather: snow
"""

import asyncio
import sys

import iokernel

cache = iokernel.open(sys.argv[1] if len(sys.argv) > 1 else "redis://127.0.0.1:6379")


async def main() -> None:
    # Entered once the server has accepted it: what is published from here on is seen.
    async with cache.subscribe("SUBSCRIBE", "weather", timeout=5) as stream:
        for message in ("sun", "rain", "snow"):
            await cache("PUBLISH", "weather", message)
        seen = 0
        async for kind, channel, payload in stream:
            assert kind == "message"
            print(f"{channel.decode()}: {payload.decode()}")
            seen += 1
            if seen == 3:
                break


asyncio.run(main())
cache.close()
