"""Nothing is executed from a stranger's .pt2 file, and what petra exports passes."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from program_edits import (
    calls,
    evil_argument,
    evil_expression,
    evil_input_name,
    evil_key,
    evil_weight_name,
    imported_constant,
    imported_type,
    tampered,
    weights_with,
)
from torch import Tensor, nn

from petra.core.errors import ArtifactError
from petra.measure.random_inputs import random_inputs
from petra.runtimes import torch_records, torch_schema, torch_values
from petra.runtimes.torch_archive import rebuilt
from petra.runtimes.torch_eager import TorchEager
from petra.runtimes.torch_program import load_program
from petra.runtimes.torch_text import operator


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"logits": self.linear(a) + b.float().sum(1, keepdim=True)}


class Masked(nn.Module):
    """Operators with a string argument, with names like Python's own, and on symbolic sizes."""

    def forward(self, x: Tensor) -> Tensor:
        kept = (x > 0) & (x < 2)
        flat = torch.einsum("bi,bj->bij", x, x).reshape(x.shape[0] * x.shape[1], -1)
        return nn.functional.gelu(flat, approximate="tanh").view(x.shape[0], -1) * kept.sum()


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt2"
    example = {"a": torch.randn(2, 4), "b": torch.ones(2, 4, dtype=torch.int64)}
    TorchEager().export(TwoInputs().eval(), example, path)
    return path


def test_what_is_rebuilt_has_petra_s_own_members_and_computes_the_same(exported: Path) -> None:
    again = exported.with_name("again.pt2")
    with rebuilt(exported) as clean:
        again.write_bytes(clean.read())
    with zipfile.ZipFile(again) as archive, zipfile.ZipFile(exported) as source:
        assert {name.partition("/")[0] for name in archive.namelist()} == {"archive"}
        below = [sorted(name.partition("/")[2] for name in z.namelist()) for z in (archive, source)]
        assert below[0] == below[1]
        assert all(
            json.loads(archive.read(f"archive/{name}")) == json.loads(source.read(f"model/{name}"))
            for name in below[0]
            if name.endswith("_config.json")
        )
    sessions = [TorchEager().load(path) for path in (exported, again)]
    inputs = random_inputs(sessions[0].inputs, 3, seed=0)
    first, second = (session.run(inputs) for session in sessions)
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)


def test_honest_operators_pass(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    model, x = Masked().eval(), torch.randn(3, 4)
    TorchEager().export(model, x, path)
    session = TorchEager().load(path)
    torch.testing.assert_close(
        torch.from_numpy(session.run({"input": x.numpy()})["output"]), model(x)
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"replace": {"/data/sample_inputs/model.pt": b"\x80\x04."}}, "sample inputs"),
        ({"replace": {"/data/aotinductor/model/x.so": b"ELF"}}, "compiled"),
        (
            {"edit_weights": {"use_pickle": True}},
            "use_pickle",
        ),
        ({"edit": calls("torch.hub.load")}, "torch.hub.load"),
        ({"edit": calls("_operator.methodcaller")}, "methodcaller"),
        ({"edit": calls("_operator.call")}, "_operator.call"),
        ({"edit": calls("torch.ops.aten.from_file.default")}, "from_file"),
        ({"edit": calls("torch.ops.aten.save.default")}, "aten.save"),
        ({"edit": calls("torch.ops.aten.__init__.__globals__")}, "__init__"),
        ({"edit": calls("torch.ops.aten.relu.__class__")}, "__class__"),
        ({"edit": calls("torch.ops.higher_order.with_effects")}, "with_effects"),
        ({"edit": evil_argument}, "attrgetter"),
        ({"edit": evil_expression}, "suspicious"),
        ({"edit": evil_input_name}, "suspicious name"),
        ({"edit": evil_key}, "suspicious"),
        ({"edit": evil_weight_name}, "suspicious name"),
        ({"edit": imported_type}, "defaultdict"),
        ({"edit": imported_constant}, "suspicious input or output names"),
    ],
)
def test_files_that_could_run_code_are_refused(
    exported: Path, change: dict[str, Any], words: str
) -> None:
    if "edit_weights" in change:
        change = {
            "replace": {"weights_config.json": weights_with(exported, **change["edit_weights"])}
        }
    with pytest.raises(ArtifactError, match=words):
        TorchEager().load(tampered(exported, **change))


def test_the_attacks_are_real(exported: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without the check, a weight's name is executed as Python: this is what the tests above are
    about.
    """
    evil = json.dumps('linear"); print("owned')

    def rename(program: dict[str, Any]) -> None:
        text = json.dumps(program).replace('"linear.weight"', evil)
        program.update(json.loads(text))

    with zipfile.ZipFile(exported) as archive:
        (table,) = (name for name in archive.namelist() if name.endswith("weights_config.json"))
        weights = archive.read(table).decode().replace('"linear.weight"', evil)
    path = tampered(exported, edit=rename, replace={"weights_config.json": weights.encode()})
    module = torch.export.load(str(path)).module(check_guards=False)
    with pytest.raises(RuntimeError):  # the operator gets no weight, but the damage is done
        module(a=torch.ones(2, 4), b=torch.ones(2, 4))
    assert "owned" in capfd.readouterr().out
    with pytest.raises(ArtifactError, match="suspicious name"):
        load_program(path)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 truncated"])
def test_corrupt_files_are_artifact_errors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pt2"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"not a \.pt2 archive"):
        TorchEager().load(path)


def test_a_shipped_file_says_nothing_of_where_it_was_made(exported: Path) -> None:
    with zipfile.ZipFile(exported) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert Path(__file__).name.encode() not in content
    assert b"stack_trace" not in content
    assert b"TwoInputs" not in content


def numbers(*values: int) -> list[dict[str, int]]:
    return [{"as_int": value} for value in values]


@pytest.mark.parametrize(
    "fields",
    [
        {"sizes": numbers(4, 4)},  # one row too many
        {"storage_offset": {"as_int": 1}},
        {"strides": numbers(4, 2)},
        {"strides": numbers(-4, 1)},
        {"sizes": numbers(2**40, 2**40)},
        {"sizes": numbers(3), "strides": numbers(1, 1)},
        {"sizes": [{"as_expr": {"expr_str": "Integer(3)"}}, {"as_int": 4}]},
        {"dtype": 8},  # twice as wide
        {"dtype": 20},  # no type has this number
        {"device": {"type": "cuda", "index": 0}},
        {"layout": 1},
        {"path_name": "weight_77"},
        {"path_name": "../weight_0"},
    ],
)
def test_tensors_lie_within_their_bytes(exported: Path, fields: dict[str, object]) -> None:
    table = weights_with(exported, **fields)
    with pytest.raises(ArtifactError, match=r"weight|model_weights_config"):
        load_program(tampered(exported, replace={"weights_config.json": table}))


def test_part_of_a_tensor_s_bytes_is_enough(exported: Path) -> None:
    """Views of one storage ship as one member."""
    table = weights_with(
        exported, sizes=numbers(3, 2), strides=numbers(4, 2), storage_offset={"as_int": 1}
    )
    path = tampered(exported, replace={"weights_config.json": table})
    with rebuilt(path) as clean:
        assert zipfile.is_zipfile(clean)


def test_every_field_of_torch_s_is_either_read_or_left_out_on_purpose() -> None:
    """When PyTorch gives its programs a new field, somebody decides whether it is harmless."""
    from torch._export.serde import schema

    records = {
        "UserSpec": "UserInputSpec",
        "ParameterSpec": "InputToParameterSpec",
        "BufferSpec": "InputToBufferSpec",
        "TensorConstantSpec": "InputToTensorConstantSpec",
        "InputMutationSpec": "UserInputMutationSpec",
        "Program": "ExportedProgram",
    }
    refused = {
        "Argument": (
            {
                "as_strings",
                "as_custom_obj",
                "as_operator",
                "as_nested_tensors",
                "as_int_lists",
            }
            | {"as_string_to_argument", "as_float_lists"}
        ),
        "InputSpec": {"custom_obj", "token", "constant_input"},
        "OutputSpec": {"loss_output", "gradient_to_parameter", "gradient_to_user_input", "token"},
    }
    found = {**vars(torch_values), **vars(torch_schema)}.values()
    ours = [
        r
        for r in found
        if isinstance(r, type) and issubclass(r, torch_records.Record) and r.model_fields
    ]
    assert len(ours) > 30
    for record in ours:
        theirs = getattr(schema, records.get(record.__name__, record.__name__))
        assert set(theirs.__dataclass_fields__) - set(record.model_fields) == refused.get(
            record.__name__, set()
        )
        assert set(record.model_fields) <= set(theirs.__dataclass_fields__)


HONEST_TARGETS = """
torch.ops.aten.conv2d.padding torch.ops.aten.__and__.Tensor torch.ops.aten.einsum.default
torch.ops.aten.lstm.input torch.ops.aten._weight_norm.default torch.ops.aten.to.dtype
torch.ops.petra.dynamic_linear.default torch.ops.petra.rowwise_linear.default
torch.ops.quantized_decomposed.quantize_per_tensor.default
torch.ops.higher_order.wrap_with_set_grad_enabled _operator.mul torch.sym_max
"""
OTHER_TARGETS = """
torch.ops.aten.save.default torch.ops.aten.from_file.default torch.ops.aten.from_file.out
torch.ops.aten._print.default torch.ops.aten.warn.default torch.ops.aten.set_.source_Storage
torch.ops.aten.device.default torch.ops.aten.format.default torch.ops.aten.relu torch.ops.aten.x.y
torch.ops.aten._test_string_default.default torch.ops.aten.wait.default
torch.ops.aten.__init__.default torch.ops.aten.relu.default.__class__
torch.ops.aten.r\u0435lu.default
torch.ops.prim.Print.default torch.ops.profiler._record_function_enter.default
torch.ops.load_library torch.ops.higher_order.call_torchbind torch.ops.higher_order.while_loop
torch.os.system torch.load torch.sym_fresh_size _operator.call _operator.lshift math.factorial
builtins.eval #petra:x
"""


@pytest.mark.parametrize("target", HONEST_TARGETS.split())
def test_operators_that_models_are_made_of(exported: Path, target: str) -> None:
    load_program(exported)  # registers those of quantized programs
    assert operator(target) == target


@pytest.mark.parametrize("target", [*OTHER_TARGETS.split(), "", "torch.ops.aten.relu.default\n"])
def test_other_functions_are_refused(target: str) -> None:
    with pytest.raises(ValueError, match="calls"):
        operator(target)


def test_what_petra_does_not_write_is_refused_by_name_safely(exported: Path) -> None:
    path = tampered(exported, replace={"/\x1b[2J\u202eevil": b"x"})
    with pytest.raises(ArtifactError, match="no exported program has") as caught:
        load_program(path)
    assert "evil" in caught.value.message
    assert caught.value.message.isprintable()
    assert "\u202e" not in caught.value.message
