"""Which machine a number was taken on."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from petra.runtimes.base import distribution_version
from petra.runtimes.table import RUNTIMES

# Instruction sets that decide how fast int8 and bf16 run on a CPU, by their flag in /proc/cpuinfo.
INSTRUCTION_SETS: Mapping[str, str] = {
    "AVX2": "avx2",
    "AVX-512": "avx512f",
    "AVX-512 VNNI": "avx512_vnni",
    "AVX-VNNI": "avx_vnni",
    "AVX-512 BF16": "avx512_bf16",
    "AMX int8": "amx_int8",
    "AMX bf16": "amx_bf16",
    "Arm dot product": "asimddp",
    "Arm i8mm": "i8mm",
}


def _cpuinfo() -> tuple[str, frozenset[str]]:
    path = Path("/proc/cpuinfo")
    model, flags = platform.processor() or platform.machine(), frozenset[str]()
    if path.is_file():
        for line in path.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                model = value.strip()
            if name.strip() in ("flags", "Features"):
                flags = frozenset(value.split())
                break
    return model, flags


def cores() -> int:
    """Cores this process may use (its affinity mask, not the machine's count)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> float:
    """Processes that want to compute, averaged over the last minute; 0 where nobody counts them."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def load_warning(load: float, cores: int) -> str:
    """What to know of other work on so many cores before something is timed on them; '' when they
    are quiet.
    """
    if load <= BUSY * cores:
        return ""
    return (
        f"load is {load:.1f} on {cores} cores: other work runs here, or did until now; trust"
        " ratios, not milliseconds"
    )


BUSY = 0.5  # of the cores, above which times are those of a shared machine


def gpus() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs the driver knows, without loading CUDA."""
    found = []
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in file.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "Model":
                found.append(value.strip())
    return tuple(found)


def describe_host() -> dict[str, object]:
    """CPU model, cores, memory, GPUs, instruction sets, versions; `id` is a short hash of what
    decides speed.
    """
    import psutil

    model, flags = _cpuinfo()
    sets = {name: flag in flags for name, flag in INSTRUCTION_SETS.items()}
    present = [name for name, has in sets.items() if has]
    identity = "|".join([model, str(cores()), str(present), platform.machine(), *gpus()])
    return {
        "id": hashlib.sha256(identity.encode()).hexdigest()[:8],
        "cpu": model,
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": list(gpus()),
        "instruction_sets": sets,
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: distribution_version(name) for name in _distributions()},
    }


def _distributions() -> list[str]:
    """What is trained with, what the runtimes are, and petra."""
    libraries = (name for runtime in RUNTIMES.names() for name in RUNTIMES.get(runtime).libraries)
    return list(dict.fromkeys(["torch", "torchao", *libraries, "petra"]))
