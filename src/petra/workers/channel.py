"""Messages between a worker and its parent: a length of 8 bytes, then that many bytes of pickle.

Both ends are ours and of one process tree: nothing here ever reads a file or a socket.
"""

from __future__ import annotations

import os
import struct
import threading
from typing import Any

import cloudpickle

_LENGTH = struct.Struct(">Q")
_CHUNK = 1 << 20


def pack(message: object) -> bytes:
    """A message as it travels. Raises whatever the pickling of its parts raises."""
    body: bytes = cloudpickle.dumps(message)
    return _LENGTH.pack(len(body)) + body


def unpack(body: bytes) -> Any:
    """The message in a frame taken from `Frames` or `read_frame`."""
    return cloudpickle.loads(body)


class Frames:
    """Puts the bytes of a stream back together into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Append what was read."""
        self._buffer += data

    def take(self) -> bytes | None:
        """The next whole frame, None when there is none yet."""
        if len(self._buffer) < _LENGTH.size:
            return None
        end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
        if len(self._buffer) < end:
            return None
        frame = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        return frame


class ChildEnd:
    """The worker's end: blocking, and safe to send on from several threads."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        self._frames = Frames()
        self._sending = threading.Lock()

    def receive(self) -> bytes:
        """The next frame. Raises EOFError when the parent is gone."""
        while (frame := self._frames.take()) is None:
            data = os.read(self._read_fd, _CHUNK)
            if not data:
                raise EOFError
            self._frames.feed(data)
        return frame

    def send(self, message: object) -> None:
        """Send one message; whatever its pickling raises is raised before anything is sent."""
        data = memoryview(pack(message))
        with self._sending:
            while data:
                data = data[os.write(self._write_fd, data) :]
