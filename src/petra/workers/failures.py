"""How a call to a worker process can fail besides with the function's own `PetraError`."""

from __future__ import annotations

import signal

from petra.core.errors import PetraError


class WorkerError(PetraError):
    """A call failed. `note` is the last note the function sent (None: none); `peak_memory_mb` the
    most resident memory of the worker and its descendants during the call, as far as it was seen.
    """

    def __init__(
        self, message: str, *, note: object = None, peak_memory_mb: float = 0.0, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.note = note
        self.peak_memory_mb = peak_memory_mb


class WorkerFailure(WorkerError):
    """The function raised something that is not a PetraError: a bug, or an exception of a library.

    `kind` is the exception's type, `traceback` its text.
    """

    def __init__(self, kind: str, text: str, traceback: str) -> None:
        super().__init__(f"{kind}: {text}" if text else kind)
        self.kind = kind
        self.traceback = traceback


class WorkerDied(WorkerError):
    """The process ended during the call: by `signal` (a name or ''), or with `exit_code`."""

    def __init__(
        self, exit_code: int, *, note: object, peak_memory_mb: float, hint: str = ""
    ) -> None:
        self.signal = _signal_name(-exit_code) if exit_code < 0 else ""
        self.exit_code = exit_code
        how = f"was ended by {self.signal}" if self.signal else f"exited with code {exit_code}"
        if self.signal == "SIGKILL":
            hint = (
                f"most likely the system ran out of memory ({peak_memory_mb:.0f} MB were seen in"
                f" use); {hint}"
            )
        super().__init__(
            f"the worker process {how}", note=note, peak_memory_mb=peak_memory_mb, hint=hint
        )


class TimeLimitExceeded(WorkerError):
    """The call took longer than `limit_s` seconds, suspensions not counted."""

    def __init__(self, limit_s: float, *, note: object, peak_memory_mb: float) -> None:
        super().__init__(
            f"not finished after {limit_s:g} s", note=note, peak_memory_mb=peak_memory_mb
        )
        self.limit_s = limit_s


class MemoryLimitExceeded(WorkerError):
    """The worker and its descendants had more than `limit_mb` MB (of 2**20 bytes) resident."""

    def __init__(self, limit_mb: float, *, note: object, peak_memory_mb: float) -> None:
        super().__init__(
            f"used {peak_memory_mb:.0f} MB of memory, {limit_mb:.0f} MB allowed",
            note=note,
            peak_memory_mb=peak_memory_mb,
        )
        self.limit_mb = limit_mb


class Unreadable(WorkerError):
    """The worker sent what is no plain record, or nothing that can be read at all."""


class NotSendable(PetraError):
    """The model, data or arguments cannot be pickled for the worker."""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
