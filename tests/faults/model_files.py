"""ONNX files and given inputs as nobody would write them: each is judged or refused, in one
message, in time.

From well-made small models, parts are changed that a parser takes for granted: sizes, types, names,
attributes, how often something is there, bytes. Every file is tried in a worker of its own, as
`petra verify` does.
"""

from __future__ import annotations

import io
import random
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from attack import Attack

from petra.core.errors import PetraError
from petra.core.target import Target
from petra.measure.client import BenchDied, alone
from petra.measure.inspect_main import InspectRequest, inspect
from petra.workers.failures import MemoryLimitExceeded, TimeLimitExceeded

sys.path.insert(0, str(Path(__file__).parents[1] / "measure"))
import foreign

SIZES = (0, 1, 2, 7, 10**4, 10**9, 2**31, 2**62, -1, -(2**63))
NAMES = (
    "",
    "n",
    "batch",
    "a/b",
    "../../x",
    "x" * 5000,
    "\x1b[31mred",
    "ü\u202e",
    "n*2",
    "past + 1",
)
LIMIT_S, LIMIT_MB = 15.0, 1500.0


def campaign(scratch: Path, *, seed: int, seconds: float) -> Iterator[Attack]:
    """See `attack.py`."""
    rng = random.Random(seed)
    end = time.monotonic() + seconds
    sources = [make() for make, _ in (*foreign.FINE.values(), *foreign.REFUSED.values())]
    count = 0
    while time.monotonic() < end:
        kind, change = rng.choice(list(CHANGES.items()))
        path, given = scratch / "m.onnx", scratch / "x.npz"
        model = onnx.ModelProto.FromString(rng.choice(sources).SerializeToString())
        change(model, rng)
        content = bytearray(model.SerializeToString())
        if kind == "bytes":
            _scramble(content, rng)
        path.write_bytes(content)
        inputs = ""
        if kind == "given inputs":
            given.write_bytes(_archive(model, rng))
            inputs = str(given)
        count += 1
        outcome, fault = _try(path, inputs, rng.choice(["onnxruntime", "onnxruntime", "openvino"]))
        if fault:
            kept = scratch.parent / f"{scratch.name}-{count}.onnx"
            kept.write_bytes(content)
            fault = f"{fault} (seed {seed}, attack {count}, kept as {kept})"
        yield Attack(kind, outcome, fault)


def _try(path: Path, inputs: str, runtime: str) -> tuple[str, str]:
    """The outcome, and which promise it breaks."""
    request = InspectRequest(Target(runtime), str(path), inputs=inputs)
    try:
        alone(
            inspect,
            request,
            artifact=str(path),
            runtimes=(runtime,),
            threads=1,
            time_limit_s=LIMIT_S,
            memory_limit_mb=LIMIT_MB,
        )
    except (TimeLimitExceeded, MemoryLimitExceeded):
        return "given up at a limit", ""
    except BenchDied as error:
        crashed = "was ended by" in error.message or "exited" in error.message
        return (
            "the process died",
            "" if crashed else f"nobody expected {error.message!r} of {runtime}",
        )
    except PetraError as error:
        wrong = len(str(error)) > 20_000 or "Traceback" in str(error)
        return "refused", f"a message of {len(str(error))} characters" if wrong else ""
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return "a bug", f"{type(error).__name__}: {error}"
    return "judged", ""


# ---- changes -------------------------------------------------------------------------------------


def _values(model: onnx.ModelProto) -> list[Any]:
    return [*model.graph.input, *model.graph.output]


def _sizes(model: onnx.ModelProto, rng: random.Random) -> None:
    for value in _values(model):
        for size in value.type.tensor_type.shape.dim:
            choice = rng.random()
            if choice < 0.3:
                size.dim_value = rng.choice(SIZES)
            elif choice < 0.6:
                size.dim_param = rng.choice(NAMES)
            elif choice < 0.7:
                size.Clear()


def _ranks(model: onnx.ModelProto, rng: random.Random) -> None:
    for value in _values(model):
        shape = value.type.tensor_type.shape
        if rng.random() < 0.5:
            for _ in range(rng.choice([1, 2, 60])):
                shape.dim.add().dim_value = rng.choice([1, 2])
        elif len(shape.dim):
            del shape.dim[rng.randrange(len(shape.dim))]


def _types(model: onnx.ModelProto, rng: random.Random) -> None:
    for value in _values(model):
        if rng.random() < 0.6:
            value.type.tensor_type.elem_type = rng.randrange(0, 30)


def _kinds(model: onnx.ModelProto, rng: random.Random) -> None:
    value = rng.choice(_values(model)) if _values(model) else model.graph.output.add()
    inner = rng.choice(["sequence_type", "optional_type"])
    tensor = value.type.tensor_type
    value.type.Clear()
    getattr(value.type, inner).elem_type.tensor_type.CopyFrom(tensor)


def _names(model: onnx.ModelProto, rng: random.Random) -> None:
    for value in _values(model):
        if rng.random() < 0.5:
            old, value.name = value.name, rng.choice(NAMES)
            for node in model.graph.node:
                for names in (node.input, node.output):
                    for i, name in enumerate(names):
                        names[i] = value.name if name == old else name


def _parts(model: onnx.ModelProto, rng: random.Random) -> None:
    part = rng.choice(
        [model.graph.node, model.graph.input, model.graph.output, model.graph.initializer]
    )
    if part and rng.random() < 0.5:
        del part[rng.randrange(len(part))]
    elif part:
        part.add().CopyFrom(rng.choice(part))


def _weights(model: onnx.ModelProto, rng: random.Random) -> None:
    for weights in model.graph.initializer:
        choice = rng.randrange(4)
        if choice == 0:
            weights.raw_data = rng.randbytes(len(weights.raw_data))
        elif choice == 1 and weights.dims:
            weights.dims[0] = rng.choice(SIZES)
        elif choice == 2:
            weights.data_type = rng.randrange(0, 30)
        else:
            weights.data_location = onnx.TensorProto.EXTERNAL
            entry = weights.external_data.add()
            entry.key, entry.value = (
                "location",
                rng.choice(["../../../../etc/passwd", "/etc/passwd", "m.onnx", ""]),
            )


def _attributes(model: onnx.ModelProto, rng: random.Random) -> None:
    for node in model.graph.node:
        for attribute in node.attribute:
            attribute.i = rng.choice(SIZES)
        if rng.random() < 0.3:
            node.op_type = rng.choice(
                ["Relu", "Reshape", "Tile", "Expand", "TopK", "Loop", "If", "NonZero", "Det"]
            )
        if rng.random() < 0.2:
            node.domain = rng.choice(["com.microsoft", "ai.onnx.ml", "x"])


def _versions(model: onnx.ModelProto, rng: random.Random) -> None:
    model.ir_version = rng.choice([0, 1, 3, 8, 13, 2**40])
    for opset in model.opset_import:
        opset.version = rng.choice([0, 1, 7, 18, 30, -1, 2**60])


def _nothing(model: onnx.ModelProto, rng: random.Random) -> None:
    pass


CHANGES: dict[str, Callable[[onnx.ModelProto, random.Random], None]] = {
    "sizes": _sizes,
    "ranks": _ranks,
    "types": _types,
    "kinds of value": _kinds,
    "names": _names,
    "parts": _parts,
    "weights": _weights,
    "attributes": _attributes,
    "versions": _versions,
    "bytes": _nothing,
    "given inputs": _nothing,
}


def _scramble(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 3, 30])):
        if content:
            content[rng.randrange(len(content))] = rng.randrange(256)
    if rng.random() < 0.2:
        del content[rng.randrange(len(content)) :]


def _archive(model: onnx.ModelProto, rng: random.Random) -> bytes:
    """An .npz for the inputs of `model`, nearly right."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for value in model.graph.input:
            shape = [size.dim_value or 3 for size in value.type.tensor_type.shape.dim]
            array = np.ones(
                shape if np.prod(shape, dtype=float) < 1e6 else (3, 4),
                rng.choice(["f4", "f2", "i8", "?", "U3"]),
            )
            member = io.BytesIO()
            np.save(member, array)
            content = bytearray(member.getvalue())
            if rng.random() < 0.5:
                _scramble(content, rng)
            archive.writestr(f"{value.name}.npy", bytes(content))
    found = bytearray(file.getvalue())
    if rng.random() < 0.3:
        _scramble(found, rng)
    return bytes(found)
