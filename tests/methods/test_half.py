"""Half precision: 16 bits throughout, and only where a runtime gains from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from half_parts import halved, towers
from torch import Tensor, nn

import petra
from petra.config import parse_config
from petra.core.errors import ConfigError, StageRefused
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import TrialStatus
from petra.methods.quantize.half import HalfPrecision
from petra.model.layers.half import half_dtype, widened
from petra.problem import build_space, objections
from petra.runtimes.table import deployable
from petra.tasks.inputs import call
from petra.testing.stage_suite import small_problem


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
