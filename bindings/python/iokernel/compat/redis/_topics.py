"""Subscriptions and MONITOR of one Connection, told as a socket of its own would have told them.

Each channel is a stream of the endpoint, delivered beside requests on the shared conn. The confirmations that redis-py
reads ("subscribe", channel, count) are made here, in the order of the commands; messages of a channel never
overtake its confirmation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from iokernel import _errors
from iokernel._channel import Channel, Completion
from iokernel._records import KIND_ACCEPTED, KIND_DONE, KIND_LOST, OP_STREAM, TIMEOUT_NONE
from iokernel._values import pack

from ._commands import Command

_PREFIXES = {"SUBSCRIBE": "", "PSUBSCRIBE": "p", "SSUBSCRIBE": "s"}
_ENDS = {"UNSUBSCRIBE": "SUBSCRIBE", "PUNSUBSCRIBE": "PSUBSCRIBE", "SUNSUBSCRIBE": "SSUBSCRIBE"}

Key = tuple[str, Any]


class Stream:
    """One channel, pattern or shard channel, or MONITOR."""

    def __init__(self, topics: Topics, step: Step) -> None:
        self.topics = topics
        self.step: Step | None = step
        self.tag = 0
        self.held: list[Any] = []

    def completion(self, done: Completion) -> None:
        """What the channel hands over."""
        topics, step = self.topics, self.step
        if done.kind == KIND_ACCEPTED:
            if step is not None:
                step.ready = True
        elif done.kind == KIND_DONE:
            if done.status:
                topics.failed(self, done.error(topics.names))
        elif done.kind != KIND_LOST:
            message = done.value()
            if step is None:
                topics.queue.append(message)
            else:
                self.held.append(message)
        topics.advance()


class Step:
    """A reply that is due, in its turn."""

    def __init__(self, topics: Topics, reply: Callable[[], Any], ready: bool = True) -> None:
        self.topics = topics
        self.reply = reply
        self.ready = ready
        self.error: Exception | None = None
        self.stream: Stream | None = None
        self.command: list[Step] = [self]

    @property
    def is_settled(self) -> bool:
        """A command's confirmations come together, as it may be refused as a whole."""
        if not all(step.ready for step in self.command):
            return False
        for step in self.command:
            step.command = [step]
        return True

    # For replies of requests

    def set_result(self, value: Any, /) -> None:
        self.reply = lambda: value
        self.settle()

    def set_exception(self, error: Exception, /) -> None:
        self.error = error
        self.settle()

    def settle(self) -> None:
        self.ready = True
        self.topics.advance()


class Topics:
    """What one Connection listens to. Its owner sees to it that one thread at a time uses the channel."""

    def __init__(
        self, channel: Channel, names: dict[int, str], endpoint: int, resp3: bool, news: Callable[[], None]
    ) -> None:
        self.channel = channel
        self.names = names
        self.queue: deque[Any] = deque()
        """Replies and messages as the kernel gave them; exceptions are to be raised."""
        self._endpoint = endpoint
        self._resp3 = resp3
        self._news = news
        self._streams: dict[Key, Stream] = {}
        self._steps: deque[Step] = deque()
        self._told: dict[Key, None] = {}
        """What redis-py was told to be subscribed to."""

    @property
    def is_due(self) -> bool:
        """Whether replies are still to come."""
        return bool(self._steps)

    def send(self, command: Command) -> None:
        """SUBSCRIBE and its kin, MONITOR, and whatever may be asked beside them."""
        if command.name in _PREFIXES:
            steps = [self._subscribe(command.name, channel) for channel in command.words[1:]]
            for step in steps:
                step.command = steps
            if not steps:
                self._request(command.words)
        elif command.name in _ENDS:
            self._unsubscribe(_ENDS[command.name], command.words[1:])
        elif command.name == "MONITOR":
            self._open(("MONITOR", b""), ["MONITOR"], lambda: "OK")
        else:
            self._request(command.words)
        self.advance()

    def _request(self, words: Sequence[Any]) -> None:
        is_ping = not self._resp3 and isinstance(words[0], str) and words[0].upper() == "PING"
        step = Step(self, lambda: None, ready=False)
        self._steps.append(step)
        # A server that speaks RESP2 answers PING differently while there are subscriptions.
        waiter = _Pong(step, words) if is_ping and self._told else step
        self.channel.request(0, self._endpoint, TIMEOUT_NONE, 0, tuple(words), waiter)

    def _subscribe(self, name: str, channel: Any) -> Step:
        key = (name, _bytes(channel))
        kind = f"{_PREFIXES[name]}subscribe"

        def confirmed() -> Any:
            self._told[key] = None
            return [kind, key[1], self._count(name)]

        if key in self._streams:
            step = Step(self, confirmed)
            self._steps.append(step)
            return step
        return self._open(key, [name, key[1]], confirmed)

    def _open(self, key: Key, request: list[Any], reply: Callable[[], Any]) -> Step:
        step = Step(self, reply, ready=False)
        stream = step.stream = Stream(self, step)
        self._steps.append(step)
        self._streams[key] = stream
        stream.tag = self.channel.submit(OP_STREAM, 0, self._endpoint, TIMEOUT_NONE, 0, pack(request), sink=stream)
        return step

    def _unsubscribe(self, name: str, channels: Sequence[Any]) -> None:
        keys: list[Key] = [(name, _bytes(channel)) for channel in channels]
        if not keys:
            keys = [key for key in self._streams if key[0] == name] or [(name, None)]
        # What has come before counts as sent before.
        while self.channel.poll():
            pass
        for key in keys:
            stream = self._streams.pop(key, None)
            if stream is not None:
                self.channel.cancel(stream.tag)
                if stream.step is not None:
                    stream.step.ready = True
            self._steps.append(Step(self, lambda key=key: self._ended(name, key)))  # type: ignore[misc]

    def _ended(self, name: str, key: Key) -> Any:
        self._told.pop(key, None)
        return [f"{_PREFIXES[name]}unsubscribe", key[1], self._count(name)]

    def _count(self, name: str) -> int:
        """The server counts channels with patterns, and shard channels apart."""
        sharded = name == "SSUBSCRIBE"
        return sum((key[0] == "SSUBSCRIBE") is sharded for key in self._told)

    def failed(self, stream: Stream, error: _errors.Error) -> None:
        """A stream was refused, or has ended. The server refuses a command as a whole."""
        for key in [key for key, known in self._streams.items() if known is stream]:
            del self._streams[key]
        step = stream.step
        if step is None:
            self.queue.append(error)
            return
        for other in step.command:
            if other is not step and other in self._steps:
                self._steps.remove(other)
                other.ready = True
                if other.stream is not None:
                    self.channel.cancel(other.stream.tag)
                    for key in [key for key, known in self._streams.items() if known is other.stream]:
                        del self._streams[key]
        step.error = error
        step.ready = True

    def advance(self) -> None:
        """Gives what is ready, in order."""
        steps = self._steps
        while steps and steps[0].is_settled:
            step = steps.popleft()
            self.queue.append(step.error if step.error is not None else step.reply())
            stream, step.stream = step.stream, None
            if stream is not None:
                stream.step = None
                self.queue.extend(stream.held)
                stream.held.clear()
        if self.queue:
            self._news()

    def close(self) -> None:
        """Ends every stream."""
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            self.channel.cancel(stream.tag)
        self._steps.clear()
        self._told.clear()


class _Pong:
    """Makes RESP2's answer to PING on a conn with subscriptions."""

    def __init__(self, step: Step, words: Sequence[Any]) -> None:
        self._step = step
        self._message = _bytes(words[1]) if len(words) > 1 else b""

    def set_result(self, _value: Any, /) -> None:
        self._step.set_result(["pong", self._message])

    def set_exception(self, error: Exception, /) -> None:
        self._step.set_exception(error)


def _bytes(word: Any) -> bytes:
    """An argument as the server sees it."""
    if isinstance(word, bytes):
        return word
    return str(word).encode()
