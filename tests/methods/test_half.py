"""Half precision: 16 bits throughout, rows of 8 bits as the formulas say, and only where a runtime
gains from it.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import petra
from petra.config import parse_config
from petra.core.errors import ConfigError, StageRefused
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import StageTrace, TrialStatus
from petra.methods.base import Context
from petra.methods.quantize.half import HalfPrecision
from petra.model.layers.half import half_dtype, widened
from petra.model.layers.row_scaled import RowwiseLinear, rowwise_linear
from petra.problem import build_space, objections
from petra.runtimes import torch_kernels
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.runtimes.openvino import OpenVino
from petra.runtimes.table import deployable
from petra.runtimes.torch_eager import TorchEager
from petra.runtimes.torch_program import load_program
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.tasks.inputs import call, named, prediction
from petra.testing.architectures import ARCHITECTURES
from petra.testing.stage_suite import small_problem


class Towers(nn.Module):
    """Linear layers that fit 8-bit kernels, one that does not, two that share a weight, and codes
    beside floats.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 32)
        self.body = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))
        self.twins = nn.ModuleList([nn.Linear(32, 32), nn.Linear(32, 32)])
        self.twins[1].weight = self.twins[0].weight
        self.head = nn.Linear(32, 3)

    def forward(self, codes: Tensor, values: Tensor) -> dict[str, Tensor]:
        x = self.body(self.table(codes).mean(1) + values)
        x = self.twins[1](torch.relu(self.twins[0](x)))
        return {"logits": self.head(x), "codes": codes[:, 0]}


def towers() -> tuple[nn.Module, Task]:
    torch.manual_seed(0)
    inputs = {"codes": torch.randint(0, 10, (96, 5)), "values": torch.randn(96, 32)}
    labels = torch.randint(0, 3, (96,))
    splits = [
        ({k: v[s] for k, v in inputs.items()}, labels[s])
        for s in (slice(0, 32), slice(32, 64), slice(64, 96))
    ]
    return Towers().eval(), classification(*splits)


def halved(model: nn.Module, task: Task, **parameters: Any) -> tuple[nn.Module, StageTrace]:
    return HalfPrecision(**parameters).apply(
        copy.deepcopy(model), Context(task=task, teacher=model, seed=0)
    )


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_weights_and_arithmetic_are_in_16_bits_and_the_border_is_as_before(
    name: str, dtype: torch.dtype
) -> None:
    model, task = towers()
    result, trace = halved(model, task, dtype=name)
    assert {t.dtype for t in (*result.parameters(), *result.buffers())} == {dtype}
    seen: list[torch.dtype] = []
    result.get_submodule("body.1").register_forward_hook(
        lambda m, args, out: seen.append(out.dtype)
    )
    example = task.example(8)
    with torch.no_grad():
        outputs: Any = call(result, example)
        expected: Any = call(model, example)
    assert seen == [dtype]
    assert outputs["logits"].dtype == torch.float32
    assert torch.equal(outputs["codes"], expected["codes"])
    error = (outputs["logits"] - expected["logits"]).square().mean().sqrt() / expected[
        "logits"
    ].std()
    assert 0 < error < 0.02
    before, after = trace.details["weight_bytes"]  # type: ignore[misc]
    assert before == 2 * after
    assert "head" in trace.touched
    assert half_dtype(result) is dtype
    assert half_dtype(model) is None


def test_a_model_s_own_hooks_stay_when_it_is_widened() -> None:
    model, task = towers()
    seen: list[list[str]] = []
    model.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(sorted(kwargs)), with_kwargs=True
    )
    wide = widened(halved(model, task)[0])
    seen.clear()
    with torch.no_grad():
        call(wide, task.example(2))
    assert seen == [["codes", "values"]]
    assert half_dtype(wide) is None
    assert {p.dtype for p in wide.parameters()} == {torch.float32}


def test_what_overflows_is_refused() -> None:
    model, task = small_problem()
    with torch.no_grad():
        model.get_submodule("stem.0").weight.mul_(1e6)
        model.get_submodule("stem.1").eps = 1e12  # type: ignore[assignment]
    with pytest.raises(StageRefused, match="not finite in fp16"):
        halved(model, task, dtype="fp16")
    halved(model, task, dtype="bf16")


def test_a_model_that_fixes_a_precision_is_refused_by_what_it_says() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(32, 3)

        def forward(self, codes: Tensor, values: Tensor) -> Tensor:
            y: Tensor = self.head(values.double().float())
            return y

    _, task = towers()
    with pytest.raises(StageRefused, match=r"does not run in bf16: .*dtype"):
        halved(Fixed().eval(), task)


@pytest.mark.parametrize("name", ["int8", "float8"])
def test_linear_layers_that_fit_get_8_bit_rows_and_the_others_say_why_not(name: str) -> None:
    model, task = towers()
    result, trace = halved(model, task, linear=name)
    replaced = {path for path, m in result.named_modules() if isinstance(m, RowwiseLinear)}
    assert replaced == {"body.0", "body.2"}
    assert "multiples of 16" in trace.skipped["head"]
    assert "twins.1" in trace.skipped["twins.0"]
    rows, twins, head, table = 2 * 32 * 64, 32 * 32, 32 * 3, 10 * 32
    biases, scales, all_macs = 64 + 32 + 32 + 32 + 3, 64 + 32, rows + 2 * twins + head
    expected = {
        "share_of_layers": 2 / 6,
        "share_of_macs": rows / all_macs,
        "share_of_macs_8_bit": rows / all_macs,
        "share_of_weights": rows / (rows + twins + head + table + biases),
        "share_of_bytes": rows / (rows + 2 * (twins + head + table + biases) + 4 * scales),
    }
    assert {key: trace.details[key] for key in expected} == pytest.approx(expected, abs=1e-4)
    floats = {
        trace.skipped[path]: n
        for path, n in (("twins.0", twins), ("twins.1", twins), ("head", head))
    }
    assert trace.details["float_macs"] == pytest.approx(
        {why: n / all_macs for why, n in floats.items()}, abs=1e-4
    )
    _, trace = halved(model, task, linear=name, exclude="body.0")
    assert trace.skipped["body.0"] == "excluded"


def test_int8_rows_against_integers() -> None:
    """Weights and activations by symmetric codes with a scale per row; sums in integers."""
    g = torch.Generator().manual_seed(0)
    W, x, b = (
        torch.randn(16, 48, generator=g),
        torch.randn(5, 48, generator=g),
        torch.randn(16, generator=g),
    )
    layer = RowwiseLinear(W, nn.Parameter(b), torch.int8)

    def codes(rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
        values = rows.numpy()
        scale = np.abs(values).max(1, keepdims=True) / np.float32(127.5)
        return np.clip(np.rint(values * (1 / scale)), -128, 127).astype(np.int64), scale

    (qx, sx), (qw, sw) = codes(x), codes(W)
    assert np.array_equal(layer.codes.numpy(), qw)
    expected = (qx @ qw.T) * sx * sw.T + b.numpy()
    with torch.no_grad():
        np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_float8_rows_against_rounded_numbers() -> None:
    """e4m3 has 448 as its largest number: every row is scaled so that its largest value becomes
    that.
    """
    g = torch.Generator().manual_seed(0)
    W, x = torch.randn(16, 48, generator=g), torch.randn(5, 48, generator=g)
    layer = RowwiseLinear(W, None, torch.float8_e4m3fn)

    def rounded(rows: Tensor) -> Tensor:
        scale = rows.abs().amax(1, keepdim=True) / 448
        return (rows / scale).to(torch.float8_e4m3fn).double() * scale.double()

    with torch.no_grad():
        got = layer(x).double()
    torch.testing.assert_close(got, rounded(x) @ rounded(W).T, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(got, x.double() @ W.double().T, rtol=1e-4, atol=1e-4)


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


@pytest.mark.parametrize("name", ["cifar-resnet", "bert"])
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


def config(runtime: str, **space: Any) -> Any:
    return parse_config(
        {"workload": {"name": "digits"}, "target": {"runtime": runtime}, "space": space}
    )


def test_the_stage_is_offered_in_what_the_runtime_computes_in() -> None:
    model, task = small_problem()

    def domain(runtime: str, parameter: str) -> str:
        found = build_space(config(runtime), task).cards["quantize.half"].parameter(parameter)
        assert found is not None
        return str(found.domain)

    assert (domain("openvino", "dtype"), domain("openvino", "linear")) == ("{bf16}", "{half}")
    assert (domain("torch", "dtype"), domain("torch", "linear")) == ("{bf16}", "{half, int8}")
    assert domain("torch.compile.cuda", "dtype") == "{bf16, fp16}"
    assert domain("torch.cuda", "linear") == "{half, int8, float8}"
    assert "quantize.half" not in build_space(config("onnxruntime"), task).cards
    assert (
        "computes in none of {bf16, fp16}"
        in objections(config("onnxruntime"), model, task)["quantize.half"]
    )
    assert "quantize.half" not in objections(config("torch"), model, task)


@pytest.mark.parametrize(
    "space", [{"stages": {"quantize.half": {}}}, {"initial": [["quantize.half"]]}]
)
def test_who_asks_for_it_where_it_gains_nothing_is_told(space: dict[str, Any]) -> None:
    _, task = small_problem()
    with pytest.raises(ConfigError, match=r"space\.\w+.*: .*onnxruntime computes in none of"):
        build_space(config("onnxruntime", **space), task)


def test_every_runtime_s_precisions_are_ones_the_stage_knows() -> None:
    card = HalfPrecision.card()
    known = {v for p in card.parameters if p.scope == "precision" for v in p.domain.values}
    for runtime in deployable().values():
        assert set(runtime.kernels.precisions) <= known


@pytest.mark.slow
def test_a_study_ships_it(tmp_path: Path) -> None:
    """From a pipeline to a measured file, in parity with the halved model, at about half the
    bytes.
    """
    model, task = small_problem()
    study = petra.compress(
        model,
        task,
        target={"runtime": "torch"},
        budget={"trials": 1},
        space={"stages": {"quantize.half": {}}, "initial": [["quantize.half"]]},
        workdir=tmp_path / "study",
    )
    baseline, trial = study.trials
    assert trial.status is TrialStatus.COMPLETE
    assert trial.pipeline == Pipeline(
        (StageSpec("quantize.half", {"dtype": "bf16", "linear": "half"}),)
    )
    assert trial.metrics["size_bytes"].mean < baseline.metrics["size_bytes"].mean


def test_the_operator_refuses_nothing_at_any_batch() -> None:
    layer = RowwiseLinear(torch.randn(16, 32), None, torch.int8)
    for shape in ((1, 32), (3, 5, 32), (2, 3, 4, 32)):
        x = torch.randn(shape)
        with torch.no_grad():
            assert layer(x).shape == (*shape[:-1], 16)
            torch.testing.assert_close(layer(x)[0], layer(x[:1])[0])  # a row's codes are its own
    torch.library.opcheck(rowwise_linear, (torch.randn(4, 32), layer.codes, layer.scale, None))
