"""Where a model will run: one record from the study file to the measuring process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from annotated_types import Ge, Le, MaxLen

_DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Target:
    """The runtime, the device it computes on, its threads, the items of a call for latency
    (`batch`) and for items per second (`throughput_batch`), and options of this runtime's own.

    `device` is where the file runs (``cpu``, ``cuda``, ``cuda:1``), not where stages train. A
    runtime's name may have it at its end: ``Target("torch.cuda")`` is ``Target("torch", "cuda")``.
    The bounds are held to where a configuration is read.
    """

    runtime: str = "onnxruntime"
    device: Annotated[str, MaxLen(40)] = "cpu"
    threads: Annotated[int, Ge(1), Le(1024)] = 1
    batch: Annotated[int, Ge(1), Le(65536)] = 1
    throughput_batch: Annotated[int, Ge(1), Le(65536)] = 64
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        runtime, _, device = self.runtime.rpartition(".")
        if runtime and device.partition(":")[0] in _DEVICES:
            object.__setattr__(self, "runtime", runtime)
            if self.device == "cpu":
                object.__setattr__(self, "device", device)

    def on(self, name: str) -> Target:
        """The target with what has this `name` in place of its runtime and device, and no options
        of the old one's.
        """
        return self if name == self.name else replace(self, runtime=name, device="cpu", options={})

    @property
    def name(self) -> str:
        """Runtime and device in a word: ``torch`` on the CPU, ``torch.cuda`` elsewhere."""
        return self.runtime if self.device == "cpu" else f"{self.runtime}.{self.device}"
