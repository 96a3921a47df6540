"""A service that fails over: writes once a second, and shows each change of its state.

$ python failover.py redis://127.0.0.1:6379
up
writes: 3 done, 0 failed

With redis+sentinel://s1,s2,s3/mymaster (and 600 as the number of writes) stop the master: the next one takes over.
"""

import asyncio
import sys
from typing import Any

import iokernel

url = sys.argv[1] if len(sys.argv) > 1 else "redis://127.0.0.1:6379"
wanted = int(sys.argv[2]) if len(sys.argv) > 2 else 3


def line(state: dict[str, Any]) -> str:
    """Peers are shown where their roles are known."""
    peers = [f"{peer['name']} ({peer['role']}, {peer['state']})" for peer in state["peers"]]
    known = any(peer["role"] != "unknown" for peer in state["peers"])
    return f"{state['state']}: {', '.join(peers)}" if known else str(state["state"])


async def show(watch: iokernel.Watch) -> None:
    async for state in watch:
        print(line(state), flush=True)


async def main() -> None:
    service = iokernel.open(url)
    await service.ready(10)
    done = failed = 0
    async with service.watch() as watch:
        shown = asyncio.create_task(show(watch))
        for number in range(wanted):
            try:
                await service("SET", "failover", number, timeout=5, idempotent=True)
                done += 1
            except iokernel.Error as error:
                failed += 1
                print(f"write {number}: {error}")
            await asyncio.sleep(1)
        shown.cancel()
    print(f"writes: {done} done, {failed} failed")
    service.close()


asyncio.run(main())
