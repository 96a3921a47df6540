"""A server of one's own that any Redis client can talk to; here, iokernel itself.

$ python listener.py
{'upper': 'HELLO', 'length': 5}
served: b'LOOK' is no command
"""

import threading

import iokernel

listener = iokernel.listen("redis://127.0.0.1:0")


def answer(request: iokernel.Request) -> object:
    """What it returns is the reply; a RemoteError that it raises is the client's error."""
    command, *arguments = request.args
    if command.upper() == b"SHOUT":
        text = arguments[0].decode()
        return {"upper": text.upper(), "length": len(text)}
    raise iokernel.RemoteError(f"{command!r} is no command", code="ERR")


server = threading.Thread(target=listener.serve, args=[answer])
server.start()

client = iokernel.open(listener.url)
print(client.call("SHOUT", "hello", timeout=5))
try:
    client.call("LOOK")
except iokernel.RemoteError as error:
    print(f"served: {error.message}")

client.close()
listener.close()
server.join()
