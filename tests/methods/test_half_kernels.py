"""Half precision in its runtimes: kernels of 8 bits, sparse kernels, files of half the bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from half_parts import halved, towers
from torch import Tensor, nn

from petra.model.layers.half import widened
from petra.runtimes import torch_kernels
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.runtimes.openvino import OpenVino
from petra.runtimes.torch_eager import TorchEager
from petra.runtimes.torch_program import load_program
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.tasks.inputs import call, named, prediction
from petra.testing.architectures import ARCHITECTURES


def loaded(model: nn.Module, task: Task, tmp_path: Path) -> tuple[Any, Tensor]:
    (path,) = TorchEager().export(model, task.example(2), tmp_path / "model.pt2")
    program = load_program(path).module(check_guards=False)
    with torch.inference_mode():
        outputs: Any = call(program, task.example(8))
    return program, outputs["logits"]


def test_a_loaded_program_computes_int8_rows_in_torchao_s_kernels(tmp_path: Path) -> None:
    model, task = towers()
    result, _ = halved(model, task, linear="int8")
    program, simulated = loaded(result, task, tmp_path)
    named = torch_kernels.use_kernels(program, "cpu")
    assert len(named) == 2
    assert not [
        n for n in program.graph.nodes if n.target is torch.ops.petra.rowwise_linear.default
    ]
    with torch.inference_mode():
        outputs: Any = call(program, task.example(8))
    assert not torch.equal(outputs["logits"], simulated)  # other kernels round elsewhere
    torch.testing.assert_close(outputs["logits"], simulated, rtol=0.02, atol=0.02)
    # On a GPU sparse kernels are looked for next: these weights are none of theirs.
    assert [*torch_kernels._sparse(program)] == []


def test_float8_is_simulated_where_there_are_no_kernels(tmp_path: Path) -> None:
    model, task = towers()
    program, simulated = loaded(halved(model, task, linear="float8")[0], task, tmp_path)
    assert torch_kernels.use_kernels(program, "cpu") == ()
    with torch.inference_mode():
        outputs: Any = call(program, task.example(8))
    assert torch.equal(outputs["logits"], simulated)


def test_two_of_four_is_two_in_every_four_of_a_row() -> None:
    dense = torch.ones(2, 8)
    assert not torch_kernels.two_of_four(dense)
    assert not torch_kernels.two_of_four(torch.zeros(2, 8))
    assert not torch_kernels.two_of_four(torch.ones(2, 6) * torch.tensor([1, 1, 0, 0, 1, 0]))
    pattern = torch.tensor([1.0, 0, 1, 0, 0, 0, 1, 1])
    assert torch_kernels.two_of_four(dense * pattern)
    # Half are zero, but three stand together.
    assert not torch_kernels.two_of_four(dense * pattern.roll(1))
    assert not torch_kernels.two_of_four((dense * pattern).unsqueeze(0))


def sparse_program(tmp_path: Path) -> tuple[Any, Task]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)
    ).eval()
    with torch.no_grad():
        for layer in (model[0], model[4]):
            layer.weight.view(-1, 4)[:, :2] = 0
    x, y = torch.randn(32, 128), torch.randint(0, 4, (32,))
    task = classification((x, y), (x, y), (x, y))
    result, _ = halved(model, task, dtype="fp16")
    (path,) = TorchEager().export(result, task.example(2), tmp_path / "model.pt2")
    return load_program(path), task


def test_only_sparse_weights_of_linear_layers_are_given_to_sparse_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The conversion needs a GPU; here one that refuses small shapes, as it does, stands in for
    it.
    """
    given: list[tuple[int, ...]] = []

    def convert(weight: Tensor) -> Tensor:
        given.append(tuple(weight.shape))
        if min(weight.shape) < 32:
            raise RuntimeError("too small")
        return weight

    monkeypatch.setattr("torch.sparse.to_sparse_semi_structured", convert)
    program, task = sparse_program(tmp_path)
    module = program.module(check_guards=False)
    with torch.inference_mode():
        before: Any = call(module, task.example(8))
        assert torch_kernels.use_kernels(module, "cpu") == ()
        assert torch_kernels.use_kernels(module, "cuda") == ("0.weight",)
        after: Any = call(module, task.example(8))
    assert sorted(given) == [(4, 64), (64, 128)]
    torch.testing.assert_close(after, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_sparse_kernels_on_a_gpu_agree(tmp_path: Path) -> None:
    from torch.export.passes import move_to_device_pass

    program, task = sparse_program(tmp_path)
    module = move_to_device_pass(program, "cuda").module(check_guards=False)
    x: Any = task.example(32)
    with torch.inference_mode():
        before = module(x.cuda())
        assert torch_kernels.use_kernels(module, "cuda") == ("0.weight",)
        torch.testing.assert_close(module(x.cuda()), before, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["cifar-resnet", pytest.param("bert", marks=pytest.mark.slow)])
def test_one_onnx_file_of_half_the_bytes_that_openvino_computes_in_bf16(
    name: str, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    model, task = ARCHITECTURES.get(name)()
    result, _ = halved(model, task)
    wide, narrow = (
        OpenVino().export(model, task.example(2), tmp_path / "wide.onnx"),
        tmp_path / "narrow.onnx",
    )
    OpenVino().export(result, task.example(2), narrow)
    assert narrow.stat().st_size < 0.6 * wide[0].stat().st_size
    example = task.example(16)
    arrays = {k: v.numpy() for k, v in named(example).items()}
    with torch.no_grad():
        reference = prediction(call(widened(result), example)).numpy()

    def error(session: Any) -> float:
        (got,) = session.run(arrays).values()
        return float(np.sqrt(np.mean((got - reference) ** 2)) / np.std(reference))

    assert error(OnnxRuntime().load(narrow)) < 5e-3, (
        "weights are rounded again where norms are folded"
    )
    session = OpenVino().load(narrow)
    assert session.precision == "bf16"  # type: ignore[attr-defined]
    assert error(session) < 0.05
    assert OpenVino().load(wide[0]).precision == "f32"  # type: ignore[attr-defined]
