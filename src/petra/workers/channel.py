"""Messages between a worker and its parent: a length of 8 bytes, then that many bytes.

What the parent sends is pickled: live models and functions, to its own child. What comes back is
read as `message.py` says.
"""

from __future__ import annotations

import os
import struct
import threading
from typing import Any

import cloudpickle

from petra.workers.failures import Unreadable
from petra.workers.message import encode

_LENGTH = struct.Struct(">Q")
_CHUNK = 1 << 20
LONGEST_ANSWER = 1 << 28  # bytes; answers are records of some kilobytes


def pack(message: object) -> bytes:
    """A message to a worker. Raises whatever the pickling of its parts raises."""
    packed: bytes = cloudpickle.dumps(message)
    return packed


def unpack(body: bytes) -> Any:
    """What the parent packed; only a worker calls this."""
    return cloudpickle.loads(body)


def framed(body: bytes) -> bytes:
    """`body` as it travels."""
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Puts the bytes of a stream back together into frames of at most `longest` bytes."""

    def __init__(self, longest: int | None = None) -> None:
        self._buffer = bytearray()
        self._longest = longest

    def feed(self, data: bytes) -> None:
        """Append what was read."""
        self._buffer += data

    def take(self) -> bytes | None:
        """The next whole frame, None when there is none yet.

        Raises Unreadable when one claims to be too long.
        """
        if len(self._buffer) < _LENGTH.size:
            return None
        length = _LENGTH.unpack_from(self._buffer)[0]
        if self._longest is not None and length > self._longest:
            raise Unreadable(
                f"the worker's message claims to have {length} bytes, {self._longest} allowed"
            )
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        frame = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        return frame


class ChildEnd:
    """The worker's end: blocking, and safe to send on from several threads."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd, self._write_fd = read_fd, write_fd
        self._frames = Frames()
        self._sending = threading.Lock()
        self._speaker = os.getpid()

    def speak(self) -> None:
        """This process, a fork of the channel's maker, is the one that sends from now on."""
        self._speaker = os.getpid()

    def receive(self) -> bytes:
        """The next frame. Raises EOFError when the parent is gone."""
        while (frame := self._frames.take()) is None:
            data = os.read(self.read_fd, _CHUNK)
            if not data:
                raise EOFError
            self._frames.feed(data)
        return frame

    def send(self, message: object) -> None:
        """Send one message; whatever its encoding raises is raised before anything is sent.

        A process that foreign code forked off and let run on ends here: there is one speaker.
        """
        data = memoryview(framed(encode(message)))
        if os.getpid() != self._speaker:
            os._exit(1)
        with self._sending:
            while data:
                data = data[os.write(self._write_fd, data) :]
