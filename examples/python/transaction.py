"""Transactions: a batch where nothing is to be decided between, a lease where something is.

$ python transaction.py redis://127.0.0.1:6379
both at once: ['OK', 90]
moved 25: a has 65, b has 35
"""

import sys

import iokernel

bank = iokernel.open(sys.argv[1] if len(sys.argv) > 1 else "redis://127.0.0.1:6379")

# One packet, one reply; the last of its replies is EXEC's.
bank.call("DEL", "a", "b", timeout=5)
replies = bank.call(["MULTI"], ["SET", "b", 10], ["INCRBY", "a", 90], ["EXEC"])
print(f"both at once: {replies[-1]}")


def move(amount: int) -> None:
    """Again from the start whenever somebody else changed an account meanwhile."""
    while True:
        # WATCH belongs to a connection, so we have one for ourselves until the end of the block.
        with bank.lease(timeout=5) as conn:
            conn.call("WATCH", "a", "b")
            if int(conn.call("GET", "a")) < amount:
                raise ValueError("not enough in a")
            conn.call("MULTI")
            conn.call("DECRBY", "a", amount)
            conn.call("INCRBY", "b", amount)
            if conn.call("EXEC") is not None:
                return


move(25)
a, b = bank.call("MGET", "a", "b")
print(f"moved 25: a has {a.decode()}, b has {b.decode()}")
bank.call("DEL", "a", "b")
bank.close()
