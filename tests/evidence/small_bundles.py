"""A small study of scikit-learn's digits and its bundle: one written as the search would have left
it, in a second, with real files, data and predictions; and one that is really searched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

import petra
from petra.config import parse_config
from petra.core.interface import BATCH, Axis, Interface, TensorSpec
from petra.core.meaning import Meaning
from petra.core.measurement import Measurement
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Origin, Proposal, Trial
from petra.measure.host import describe_host
from petra.measure.stored import save_arrays, write_dense, write_interface
from petra.store.kept_files import FILES as FILES_NOTE
from petra.store.kept_files import digests_of
from petra.store.layout import StudyPaths
from petra.store.store import Store
from petra.study import Study
from petra.tasks.base import Task
from petra.testing.recorded import synthetic_trial

RAW = "grey values of 0 to 16 over 16"
CLASSES = [f"digit {i}" for i in range(10)]
FILES = {
    *("model.onnx", "pipeline.yaml", "metrics.json", "parity.json", "evidence.json"),
    *("MODEL_CARD.md", "sample_inputs.npz", "sample_outputs.npz", "SHA256SUMS"),
}
INTERFACE = Interface(
    (TensorSpec("input", "float32", (Axis(BATCH), Axis.fixed(64)), 0),),
    (TensorSpec("output", "float32", (Axis(BATCH), Axis.fixed(10)), 0),),
    ("output",),
    "tensor",
)
MEANING = Meaning(
    inside=("takes the mean off, means 0.3",),
    output="a score of each class",
    classes=tuple(CLASSES),
    scores=True,
)
Parts = Mapping[str, tuple[np.ndarray, np.ndarray]]


def parts() -> Parts:
    data = load_digits()
    x, y = (data.data / 16).astype(np.float32), data.target.astype(np.int64)
    bounds = {"train": slice(600), "val": slice(600, 900), "test": slice(900, 1200)}
    return {name: (x[part], y[part]) for name, part in bounds.items()}


def write_linear(path: Path, weights: np.ndarray, bias: np.ndarray, *, int8: bool) -> Path:
    """A linear classifier from (batch, 64) to (batch, 10), its weights as codes if `int8`."""
    scale = np.float32(np.abs(weights).max() / 64)
    codes = np.round(weights / scale).astype(np.int8)
    constants = {"b": bias, "w": weights} if not int8 else {"b": bias, "codes": codes, "s": scale}
    nodes = [helper.make_node("DequantizeLinear", ["codes", "s"], ["w"])] if int8 else []
    nodes += [
        helper.make_node("MatMul", ["input", "w"], ["h"]),
        helper.make_node("Add", ["h", "b"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def stored(directory: Path) -> Path:
    """The untouched model and its int8 form, confirmed, with files, data and predictions that are
    what they would be. Classes are named, and nobody said what the inputs went through.
    """
    data, paths = parts(), StudyPaths(directory)
    fitted = LogisticRegression(max_iter=200).fit(*data["train"])
    weights = fitted.coef_.T.astype(np.float32), fitted.intercept_.astype(np.float32)
    config = parse_config(
        {"workload": "digits", "objectives": ("quality", "size"), "workdir": str(directory)}
    )
    with Store.create(directory, config.model_dump(mode="json"), describe_host()) as store:
        for name in ("val", "test"):
            write_dense({"input": data[name][0]}, paths.data / name)
            write_interface(INTERFACE, paths.data / name)
            np.save(paths.data / f"{name}.targets.npy", data[name][1])
        store.set_note("task", {"metric": "accuracy", "maximize": True})
        store.set_note("interface", INTERFACE.as_dict())
        store.set_note("meaning", MEANING.as_dict())
        trials = [_trial(paths, data, number, weights, store) for number in (0, 1)]
        store.set_note(FILES_NOTE, digests_of(directory, trials, {}))
        store.set_note("stop_reason", "the budget of 1 trials is spent")
    return directory


def _trial(
    paths: StudyPaths, data: Parts, number: int, weights: tuple[np.ndarray, ...], store: Store
) -> Trial:
    pipeline = Pipeline((StageSpec("quantize.weights"),)) if number else Pipeline()
    proposal = Proposal(number, pipeline, Origin(("given",)))
    store.propose(proposal)
    file = write_linear(paths.artifact(number) / "model.onnx", *weights, int8=bool(number))
    session = onnxruntime.InferenceSession(str(file))
    quality = {}
    for name in ("val", "test"):
        x, y = data[name]
        (found,) = session.run(None, {"input": x})
        if name == "test" or not number:
            save_arrays(paths.predictions(name, number), {"output": found})
        share = float((found.argmax(1) == y).mean())
        quality[name] = Measurement(share, (share * (1 - share) / len(y)) ** 0.5, len(y))
    size = Measurement(float(file.stat().st_size), unit="B")
    made = synthetic_trial(proposal)
    ratio = Measurement(0.9, 0.4, 20, "x")
    metrics = {**made.metrics, "latency_ratio": ratio, "size_bytes": size}
    trial = replace(
        made,
        metrics=metrics | {"quality": quality["val"]},
        artifact=paths.relative(file),
        parity={"max_abs_error": 1e-3, "relative_error": 1e-4, "tolerance": 0.05},
    )
    store.add(trial)
    test = {"quality": quality["test"], "latency_ratio": ratio}
    store.set_test(number, test | {"latency_ms": metrics["latency_ms"]})
    return replace(trial, test=test)


def digits(**said: Any) -> tuple[nn.Module, Task]:
    """A perceptron behind a normalisation, trained for a second, and its task."""
    splits = {n: tuple(torch.from_numpy(array) for array in p) for n, p in parts().items()}
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))
    x, y = splits["train"]
    model = petra.data.normalised(network, (x, y))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval(), petra.classification(*splits.values(), **said)


def searched(directory: Path) -> Study:
    """The untouched model and its int8 form, really searched for and confirmed."""
    model, task = digits(classes=CLASSES)
    return petra.compress(
        model,
        task,
        objectives=["quality", "size"],
        space={"initial": [["quantize.static"]], "recipes": False},
        budget={"trials": 1},
        workdir=directory,
    )


def reseal(bundle: Path) -> None:
    """Make the checksums of a bundle those of its files as they are: what a forger does."""
    metrics = json.loads((bundle / "metrics.json").read_text())
    for file in metrics["files"]:
        content = (bundle / file["name"]).read_bytes()
        file |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (bundle / "metrics.json").write_text(json.dumps(metrics))
    lines = [
        f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n"
        for f in sorted(bundle.iterdir())
        if f.name != "SHA256SUMS"
    ]
    (bundle / "SHA256SUMS").write_text("".join(lines))


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file."""
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def flipped(content: bytes, place: int, bit: int = 0) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    return bytes(changed)
