"""Studies of ONNX files: from Python, from a study file, and of what exporters write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper
from onnx_files import convolutional, run
from onnx_tasks import pictures
from torch import nn

import petra
from petra.api import resume_study, study_from_file
from petra.config import load_config, parse_config
from petra.core.errors import DataError
from petra.core.trial import TrialStatus
from petra.model.imported.build import read_model
from petra.runtimes.verify import FLOAT_TOLERANCE, INT8_TOLERANCE
from petra.sources import located

FILE_STAGES = ["quantize.dynamic", "quantize.half", "quantize.static", "quantize.weights"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_of_a_file(tmp_path: Path) -> None:
    """The baseline is the file, byte for byte; the candidate is int8; both are parity-checked."""
    file = convolutional(tmp_path / "net.onnx", channels=32)
    study = petra.compress(
        str(file),
        pictures(),
        budget={"trials": 1},
        space={"stages": ["quantize.static"], "initial": [["quantize.static"]], "recipes": False},
        workdir=tmp_path / "study",
    )
    baseline, other = study.trials
    assert (tmp_path / "study" / baseline.artifact).read_bytes() == file.read_bytes()
    assert baseline.parity["relative_error"] < FLOAT_TOLERANCE
    assert other.status == TrialStatus.COMPLETE, other.failure
    assert other.parity["relative_error"] < INT8_TOLERANCE
    assert other.metrics["size_bytes"].mean < 0.45 * file.stat().st_size
    assert study.front.members


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_over_all_that_may_be_done_to_a_file(tmp_path: Path) -> None:
    """From a study file, resumed once, with the report, the bundle and both runtimes."""
    convolutional(tmp_path / "net.onnx", channels=32)
    (tmp_path / "onnx_task_module.py").write_text(
        "import petra, torch\n"
        "def task():\n"
        "    g = torch.Generator().manual_seed(0)\n"
        "    x, y = torch.randn(300, 1, 8, 8, generator=g), torch.arange(300) % 10\n"
        "    parts = ((0, 180), (180, 240), (240, 300))\n"
        "    return petra.classification(*((x[a:b], y[a:b]) for a, b in parts))\n"
    )
    (tmp_path / "study.yaml").write_text(
        "model: net.onnx\ntask: onnx_task_module:task\nbudget: {trials: 3}\n"
        f"workdir: {tmp_path / 'study'}\n"
    )
    study = study_from_file(tmp_path / "study.yaml").run()
    assert study.trials[0].status == TrialStatus.COMPLETE
    assert sum(t.status == TrialStatus.COMPLETE for t in study.trials) >= 2
    assert {s.kind for t in study.trials for s in t.pipeline} <= {*FILE_STAGES, "repair.batchnorm"}
    member = study.front.pick("smallest")
    member.export(tmp_path / "bundle")
    more = resume_study(tmp_path / "study", budget={"trials": 4}).run()
    assert len(more.trials) == 5
    assert more.compare_runtimes(["onnxruntime", "openvino"], pick="smallest")


# -- study files -----------------------------------------------------------------------------------


def test_a_study_file_names_an_onnx_file_beside_it(tmp_path: Path) -> None:
    convolutional(tmp_path / "net.onnx")
    (tmp_path / "study.yaml").write_text("model: net.onnx\ntask: torch:zeros\n")
    config = located(load_config(tmp_path / "study.yaml"), [tmp_path, Path.cwd()])
    assert config.model is not None
    assert config.model.args == {"path": str(tmp_path / "net.onnx")}
    assert parse_config(config.model_dump()) == config


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        petra.compress("nowhere.onnx", pictures(), workdir=tmp_path / "study")
    with pytest.raises(DataError, match="an ONNX object"):
        petra.compress(  # type: ignore[arg-type]
            helper.make_model(helper.make_graph([], "g", [], [])),
            pictures(),
            workdir=tmp_path / "study",
        )
    assert not (tmp_path / "study").exists() or not any((tmp_path / "study").iterdir())


# -- what exporters write --------------------------------------------------------------------------

SMALL = [
    *("cifar-resnet", "se-resnet", "resnext", "separable", "group-norm", "densenet", "unet"),
    *("cnn-3d", "functional-calls", "cnn-1d", "gru", "lstm", "conv-gru", "inception-time"),
    *("lstm-fcn", "tcn", "patch-transformer", "padding-mask", "causal-encoder", "cached-bias"),
    *("neighbour-gate", "wide-gate", "single-gate", "cbam", "global-context", "shuffle"),
    *("gated-conv", "mixture", "preact-resnet", "single-group", "standardised", "normed-tcn"),
    *("spectral", "autoencoder", "class-token", "learned-queries", "relative-bias", "decoder"),
    *("mixer", "einsums", "mlp", "fused-qkv", "torch-transformer", "multi-output"),
    *("shared-weights", "bert", "distilbert", "gpt2", "vit", "mobilenet-v2", "convnext"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_file_that_petra_exports_comes_back_as_the_model(name: str, tmp_path: Path) -> None:
    from petra.runtimes.onnx_export import export_onnx
    from petra.tasks.inputs import call, named, named_outputs
    from petra.testing.architectures import ARCHITECTURES

    original, task = ARCHITECTURES.get(name)()
    file = export_onnx(original, task.example(2), tmp_path / "model.onnx")
    model = read_model(file)
    inputs = task.example(16)
    with torch.no_grad():
        wanted = named_outputs(call(original.eval(), inputs))
        found = model(**named(inputs))
    for output, value in wanted.items():
        if value.is_floating_point():
            scale = max(float(value.std()), 1e-3)
            off = (found[output] - value).square().mean().sqrt() / scale
            assert float(off) < FLOAT_TOLERANCE, output
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.RNNBase)
    had, has = (sum(isinstance(m, layers) for m in m.modules()) for m in (original, model))
    assert has or not had
    again = export_onnx(model, named(inputs), tmp_path / "again.onnx")
    back = run(again, {k: v.numpy() for k, v in named(inputs).items()})
    main = next(iter(wanted))
    np.testing.assert_allclose(back[main], wanted[main].numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["cifar-resnet", "gru", "torch-transformer", "vit", "bert", "gpt2"]
)
def test_a_file_of_the_older_exporter_is_read(name: str, tmp_path: Path) -> None:
    """Opset 14, as most files that are about: layer norms are spelled out, shapes computed."""
    from petra.tasks.inputs import named
    from petra.testing.architectures import ARCHITECTURES

    original, task = ARCHITECTURES.get(name)()
    given = named(task.example(2))
    keyed = isinstance(task.example(2), dict)
    file = tmp_path / "model.onnx"
    torch.onnx.export(
        original.eval(),
        () if keyed else tuple(given.values()),
        str(file),
        kwargs=dict(given) if keyed else None,
        input_names=list(given),
        dynamic_axes={key: {0: "n"} for key in given},
        opset_version=14,
        dynamo=False,
    )
    model = read_model(file)
    inputs = named(task.example(16))
    with torch.no_grad():
        found = model(**inputs)
    outputs = run(file, {key: x.numpy() for key, x in inputs.items()})
    for own, wanted in zip(found.values(), outputs.values(), strict=True):
        np.testing.assert_allclose(own.numpy(), wanted, rtol=1e-3, atol=1e-4)
    norms = (sum(isinstance(m, nn.LayerNorm) for m in part.modules()) for part in (original, model))
    assert len(set(norms)) == 1
