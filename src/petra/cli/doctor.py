"""petra doctor: what this machine can do, and what to know before trusting numbers from it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from petra.cli.announced import brought_here, lines
from petra.cli.output import JsonFlag, say, say_json


def doctor(as_json: JsonFlag = False) -> None:
    """Describe this machine as petra sees it, and warn of what makes models or measurements worse
    on it.

    For example:

    - `petra doctor`
    - `petra doctor --json`
    """
    found = examine()
    if as_json:
        say_json(found)
        return
    sets = [name for name, has in found["instruction_sets"].items() if has]
    say(f"CPU      {found['cpu']}, {found['cores']} cores usable, load {found['load']:.1f}")
    say(f"         {', '.join(sets) or 'none of the instruction sets that matter here'}")
    say(f"memory   {found['memory_gb']} GiB, {found['memory_free_gb']} GiB free")
    say(f"GPU      {', '.join(found['gpus']) or 'none'}")
    say(
        f"torch    {found['versions'].get('torch', '')}, "
        f"bf16 {'in hardware' if found['fast_bf16'] else 'emulated: not used'}"
    )
    say(f"threads  {found['training'] or 'one core: one thread for each candidate'}")
    say(f"compiler {found['compiler'] or 'none for C++'}")
    for name, version in found["runtimes"].items():
        say(f"runtime  {name} {version or 'not here: ' + found['missing'][name]}")
        say(f"         {found['descriptions'][name]}")
    others = ", ".join(f"{k} {v}" for k, v in found["versions"].items() if v and k != "torch")
    say(f"versions Python {found['python']}, {others}")
    for line in lines(found["plugins"]):
        say(line)
    for warning in found["warnings"]:
        say(f"note:    {warning}")


def examine() -> dict[str, Any]:
    """Everything `petra doctor` prints, as plain data."""
    import psutil
    import torch

    from petra.measure.host import describe_host, load
    from petra.runtimes.table import deployable
    from petra.training.precision import has_fast_bf16

    host = describe_host()
    found: dict[str, Any] = dict(host)
    found["load"] = load()
    found["memory_free_gb"] = round(psutil.virtual_memory().available / 2**30, 1)
    found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    found["fast_bf16"] = has_fast_bf16("cuda" if found["gpus"] else "cpu")
    found["training"] = training(found["cores"])
    runtimes = deployable()
    lacking = {name: runtime.lacks() for name, runtime in runtimes.items()}
    found["runtimes"] = {
        name: "" if lacking[name] else runtime.version() for name, runtime in runtimes.items()
    }
    found["missing"] = {name: lacks for name, lacks in lacking.items() if lacks}
    found["descriptions"] = {name: runtime.description() for name, runtime in runtimes.items()}
    found["compiler"] = compiler()
    found["plugins"] = brought_here()
    found["warnings"] = warnings(found)
    return found


def training(cores: int) -> str:
    """How a study of a small network would share the cores now; '' where there is one."""
    from petra.config import StudyConfig
    from petra.core.target import Target
    from petra.execute.build import BuildPayload
    from petra.execute.crew import Crew
    from petra.execute.training_speed import speed_of, time_steps
    from petra.workloads.digits import DigitsNet, digits_task

    if cores == 1:
        return ""
    payload = BuildPayload(DigitsNet(), digits_task(), Target(), seed=0, data=Path())
    crew = Crew.of(StudyConfig())
    counts = crew.counts()
    steps, seconds = time_steps(payload, lambda note: None, counts)
    speed = speed_of(steps, dict(zip(counts, seconds, strict=True)), crew)
    return f"workers: {crew.workers(speed.threads)}, {speed.in_words()} (a small CNN)"


def compiler() -> str:
    """The C++ compiler that torch.compile would use, as it names itself; '' when there is none."""
    from petra.runtimes.torch_compile import cpp_compiler

    path = cpp_compiler()
    if not path:
        return ""
    said = subprocess.run(
        [path, "--version"], capture_output=True, text=True, timeout=60, check=False
    ).stdout
    return next(iter(said.splitlines()), path)


def warnings(found: Mapping[str, Any]) -> list[str]:
    """What a person should know before a study on this machine."""
    from petra.measure.host import load_warning

    sets: Mapping[str, bool] = found["instruction_sets"]
    said = []
    if not any(
        sets.get(name)
        for name in ("AVX-512 VNNI", "AVX-VNNI", "AMX int8", "Arm dot product", "Arm i8mm")
    ):
        said.append(
            "no integer dot-product instructions: int8 models gain less speed here than on newer"
            " machines"
        )
    if not found["fast_bf16"]:
        said.append("bf16 is not in hardware: training runs in fp32")
    if busy := load_warning(found["load"], found["cores"]):
        said.append(busy)
    if found["memory_free_gb"] < 4:
        said.append(
            "less than 4 GiB of memory are free: lower limits.trial_memory and limits.workers"
        )
    if not any(found["runtimes"].values()):
        said.append("no runtime is installed: pip install onnxruntime")
    return said
