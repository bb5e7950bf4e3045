"""The table of runtimes. A new runtime is one new file and one line here."""

from __future__ import annotations

from pathlib import Path

from petra.core.announced import PluginError, subclass_of
from petra.core.errors import ConfigError, did_you_mean
from petra.core.registry import Registry
from petra.core.target import Target
from petra.core.text import shown
from petra.runtimes.base import Runtime

# Of several that load one kind of file, the first is meant when none is named.
_TABLE = {
    "onnxruntime": "petra.runtimes.onnxruntime:OnnxRuntime",
    "openvino": "petra.runtimes.openvino:OpenVino",
    "torch": "petra.runtimes.torch_eager:TorchEager",
    "torch.compile": "petra.runtimes.torch_compile:TorchCompile",
    "litert": "petra.runtimes.litert:LiteRt",
}

RUNTIMES: Registry[type[Runtime]] = Registry(
    "runtime", _TABLE, group="petra.runtimes", check=subclass_of("petra.runtimes.base:Runtime")
)


def runtime_for(target: Target) -> Runtime:
    """The runtime of a target, as it is used there.

    Raises ConfigError, beginning with the field that is wrong, for an unknown runtime, and for a
    device or options that it does not have.
    """
    if target.runtime not in RUNTIMES:
        raise ConfigError(
            f"runtime: unknown runtime {shown(target.runtime)}",
            hint=did_you_mean(target.runtime, RUNTIMES),
        )
    runtime = RUNTIMES.get(target.runtime)
    if target.device.partition(":")[0] not in runtime.devices:
        raise ConfigError(
            f"device: {target.runtime} does not run on {shown(target.device)}",
            hint=f"allowed: {', '.join(runtime.devices)}",
        )
    for name, value in target.options.items():
        if name not in runtime.options:
            raise ConfigError(
                f"options: {target.runtime} has no option {shown(name)}",
                hint=did_you_mean(name, runtime.options) if runtime.options else "it has none",
            )
        if not runtime.options[name].contains(value):
            raise ConfigError(
                f"options.{name}: got {shown(value)}", hint=f"allowed: {runtime.options[name]}"
            )
    return runtime(target)


def deployable() -> dict[str, Runtime]:
    """Every runtime on every kind of device it runs on, by the target's name."""
    known = {name: RUNTIMES.get(name) for name in RUNTIMES.names()} | _of_packages()
    found = [
        runtime(Target(name, device))
        for name, runtime in sorted(known.items())
        for device in runtime.devices
    ]
    return {runtime.target.name: runtime for runtime in found}


def runtimes_by_suffix() -> dict[str, str]:
    """File name extension (with its dot) -> the runtime it stands for."""
    found: dict[str, str] = {}
    known = {name: RUNTIMES.get(name) for name in dict.fromkeys([*_TABLE, *RUNTIMES.names()])}
    for name, runtime in (known | _of_packages()).items():
        for suffix in (runtime.suffix, *runtime.reads):
            found.setdefault(suffix, name)
    return found


def _of_packages() -> dict[str, type[Runtime]]:
    """Runtimes that installed packages bring, without those that cannot be loaded."""
    return {
        one.name: found for one, found in RUNTIMES.offered() if not isinstance(found, PluginError)
    }


def files_of(path: Path) -> list[Path]:
    """The files of the artifact `path`, itself first, as the runtime knows that its suffix stands
    for.
    """
    name = runtimes_by_suffix().get(path.suffix)
    return RUNTIMES.get(name).files(path) if name else [path]
