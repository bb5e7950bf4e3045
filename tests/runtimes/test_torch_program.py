"""The .pt2 program: reload without the class, every calling convention, what the PyTorch runtimes
share.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from petra.core.errors import ArtifactError, DataError
from petra.core.target import Target
from petra.model.layers.quantized import Codes, DynamicQuantizedLinear
from petra.runtimes.base import Runtime, RuntimeUnavailable
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.runtimes.openvino import OpenVino
from petra.runtimes.table import runtime_for
from petra.runtimes.torch_compile import TorchCompile
from petra.runtimes.torch_eager import TorchEager
from petra.runtimes.torch_program import LoadedProgram
from petra.tasks.inputs import Inputs, call, named, named_outputs, unnamed
from petra.workloads.digits import DigitsNet


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"logits": self.linear(a) + b.float().sum(1, keepdim=True)}


class Output(dict[str, Tensor]):
    """A container of the model's own, as Hugging Face's are."""


class Own(nn.Module):
    """Returns what no other process knows the class of."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = TwoInputs()

    def forward(self, a: Tensor, b: Tensor) -> Output:
        return Output(self.inner(a, b), hidden=a * 2)


A, B = torch.randn(2, 4), torch.ones(2, 4, dtype=torch.int64)
CASES: dict[str, tuple[nn.Module, Inputs]] = {
    "tensor": (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), A),
    "one item": (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), A[:1]),
    "tuple": (TwoInputs(), (A, B)),
    "dict": (TwoInputs(), {"b": B, "a": A}),
    "own outputs, tuple": (Own(), (A, B)),
    "own outputs, dict": (Own(), {"b": B, "a": A}),
}


@pytest.mark.parametrize("case", CASES)
def test_round_trip_at_any_batch(case: str, tmp_path: Path) -> None:
    model, example = CASES[case]
    path = tmp_path / "model.pt2"
    assert TorchEager().export(model.eval(), example, path) == [path]
    session = TorchEager().load(path)
    assert set(session.input_names) == set(named(example))
    assert all(spec.shape == (None, 4) for spec in session.inputs)
    for n in (1, 2, 7):
        arrays = {k: np.repeat(v.numpy(), n, axis=0)[:n] for k, v in named(example).items()}
        inputs = unnamed({k: torch.from_numpy(v) for k, v in arrays.items()}, like=example)
        expected = named_outputs(call(model, inputs))
        got = session.run(arrays)
        assert set(got) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], value.detach().numpy(), atol=1e-6)


def test_a_graph_that_returns_containers_of_its_own_ships_without_them(tmp_path: Path) -> None:
    """As the graphs of quantizers do where the model is one of Hugging Face's."""

    class Registered(dict[str, Tensor]):
        pass

    class Model(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Registered:
            return Registered(sum=a + b, product=a * b)

    pytree.register_pytree_node(
        Registered,
        lambda output: (list(output.values()), list(output)),
        lambda values, keys: Registered(zip(keys, values, strict=True)),
    )
    graph = torch.export.export(Model(), (A, B)).module(check_guards=False)
    assert isinstance(graph(A, B), Registered)
    path = tmp_path / "model.pt2"
    TorchEager().export(graph, (A, B), path)
    got = TorchEager().load(path).run({"input_0": A.numpy(), "input_1": B.numpy()})
    assert set(got) == {"sum", "product"}
    np.testing.assert_allclose(got["product"], (A * B).numpy(), atol=1e-6)


def test_what_is_no_tensor_is_refused_with_its_reason(tmp_path: Path) -> None:
    @dataclass
    class Answer:
        logits: Tensor

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Answer:
            return Answer(x)

    with pytest.raises(DataError, match="returned Answer"):
        TorchEager().export(Model(), A, tmp_path / "model.pt2")


def test_weights_that_a_graph_no_longer_reads_do_not_ship(tmp_path: Path) -> None:
    graph = torch.fx.symbolic_trace(nn.Linear(64, 64).eval())
    small = graph.graph.find_nodes(op="get_attr")[0]
    graph.register_buffer("codes", torch.zeros(64, 64, dtype=torch.int8))
    with graph.graph.inserting_after(small):
        codes = graph.graph.get_attr("codes")
    with graph.graph.inserting_after(codes):
        weight = graph.graph.call_function(torch.ops.aten.to.dtype, (codes, torch.float32))
    small.replace_all_uses_with(weight)
    graph.recompile()
    path = tmp_path / "model.pt2"
    TorchEager().export(graph, torch.randn(2, 64), path)
    assert "weight" in graph.state_dict()  # the model itself is as it was
    assert path.stat().st_size < 64 * 64 * 4
    got = TorchEager().load(path).run({"input": np.ones((2, 64), np.float32)})["output"]
    np.testing.assert_array_equal(got, graph(torch.ones(2, 64)).detach().numpy())


def test_missing_file_and_missing_input(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    TorchEager().export(CASES["tensor"][0].eval(), A, path)
    with pytest.raises(ArtifactError, match="no such file"):
        TorchEager().load(tmp_path / "absent.pt2")
    with pytest.raises(ArtifactError, match="wants inputs"):
        TorchEager().load(path).run({"other": A.numpy()})


def test_low_precision_outputs_come_back_as_float32(tmp_path: Path) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2).bfloat16()

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.bfloat16())

    model, path = Half().eval(), tmp_path / "model.pt2"
    TorchEager().export(model, A, path)
    got = TorchEager().load(path).run({"input": A.numpy()})["output"]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, model(A).float().detach().numpy())


def coded(out_features: int, in_features: int) -> Codes:
    codes = torch.randint(-64, 65, (out_features, in_features), dtype=torch.int8)
    return Codes(nn.Parameter(codes, requires_grad=False), torch.full((out_features, 1), 0.01))


@pytest.mark.parametrize(
    "runtime",
    [TorchEager, pytest.param(TorchCompile, marks=pytest.mark.slow), OnnxRuntime, OpenVino],
)
def test_petra_s_own_operators_load_wherever_they_ship(
    runtime: type[Runtime], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        DynamicQuantizedLinear(coded(16, 8), None), nn.ReLU(), nn.Linear(16, 2)
    ).eval()
    path, x = tmp_path / f"model{runtime.suffix}", torch.randn(6, 8)
    if runtime().lacks():
        pytest.skip(runtime().lacks())
    runtime().export(model, x, path)
    got = runtime().load(path).run({"input": x.numpy()})["output"]
    np.testing.assert_allclose(got, model(x).detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("name", ["torch.cuda", "torch.compile.cuda"])
def test_without_a_gpu_the_gpu_runtimes_export_and_say_why_they_do_not_run(
    name: str, tmp_path: Path
) -> None:
    path, runtime = tmp_path / "model.pt2", runtime_for(Target(name))
    assert runtime.target.device == "cuda"
    model = CASES["tensor"][0].eval()
    runtime.export(model, A, path)
    got = TorchEager().load(path).run({"input": A.numpy()})["output"]
    np.testing.assert_allclose(got, model(A).detach().numpy(), atol=1e-6)
    if runtime.lacks():
        with pytest.raises(RuntimeUnavailable, match=f"{name} .*CUDA"):
            runtime.load(path)


def test_a_program_moves_to_another_device(tmp_path: Path) -> None:
    """`meta` is a device every machine has: what stayed behind on the CPU would fail to mix with
    it.
    """

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)
            self.register_buffer("shift", torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            made = torch.zeros(x.shape[0], 3, device=x.device)
            return self.linear(x) + self.shift + made

    path = tmp_path / "model.pt2"
    TorchEager().export(Model().eval(), A, path)
    session = LoadedProgram(path, threads=1, device="meta")
    with pytest.raises(ArtifactError, match="meta"):  # only the copy back to the host fails
        session.run({"input": A.numpy()})
    module = session._call
    assert isinstance(module, nn.Module)
    assert {t.device.type for t in (*module.parameters(), *module.buffers())} == {"meta"}
    assert module(torch.empty(5, 4, device="meta")).shape == (5, 3)


@pytest.mark.slow
def test_compiled_it_computes_the_same_at_any_batch(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2)).eval()
    path = tmp_path / "model.pt2"
    TorchCompile().export(model, A, path)
    session = TorchCompile().load(path)
    for n in (1, 3, 9):
        x = torch.randn(n, 4)
        np.testing.assert_allclose(
            session.run({"input": x.numpy()})["output"], model(x).detach().numpy(), atol=1e-5
        )


def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt2"
    TorchCompile().export(CASES["tensor"][0].eval(), A, path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeUnavailable, match=r"no C\+\+ compiler \(no-such-compiler\)"):
        TorchCompile().load(path)


@pytest.mark.slow
def test_a_compiled_program_is_right_at_every_batch_size(tmp_path: Path) -> None:
    """Weights that training has left channels-last are not what TorchInductor reckons with once the
    batch is free.
    """
    torch.manual_seed(0)
    model = DigitsNet().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.rand(5, 1, 8, 8)
    runtime = TorchCompile()
    (path,) = runtime.export(model, images[:2], tmp_path / "model.pt2")
    session = runtime.load(path)
    with torch.no_grad():
        expected = model(images).numpy()
    for n in (1, 5, 3, 1):
        np.testing.assert_allclose(
            session.run({"input": images[:n].numpy()})["output"], expected[:n], atol=1e-4
        )
