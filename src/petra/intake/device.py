"""Where stages can train on this machine."""

from __future__ import annotations

import torch

from petra.core.errors import ConfigError
from petra.runtimes.torch_eager import lacks_cuda


def check_device(device: str) -> None:
    """Raise ConfigError unless stages can train on `device` here."""
    allowed, missing = ["cpu"], lacks_cuda()
    if not missing:
        allowed += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if device not in allowed:
        reason = f": {missing}" if missing and device.startswith("cuda") else ""
        raise ConfigError(
            f"device: cannot train on {device!r}{reason}",
            hint=f"allowed here: {', '.join(allowed)}",
        )
