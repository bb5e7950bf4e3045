"""Nothing is executed from a stranger's .pt2 file, and what petra exports passes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petra.core.errors import ArtifactError
from petra.runtimes.torch_archive import refuse_code
from petra.runtimes.torch_eager import TorchEager

Edit = Callable[[dict[str, Any]], None]


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


def tampered(path: Path, *, replace: dict[str, bytes] | None = None, edit: Edit | None = None) -> Path:
    """A copy with members replaced or added, or the program's JSON edited by a function."""
    out = path.with_name("tampered.pt2")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for item in source.namelist():
            content = source.read(item)
            if edit and item.endswith("models/model.json"):
                program = json.loads(content)
                edit(program)
                content = json.dumps(program).encode()
            for suffix, data in (replace or {}).items():
                if item.endswith(suffix):
                    content = data
            target.writestr(item, content)
        for suffix, data in (replace or {}).items():
            if not any(name.endswith(suffix) for name in source.namelist()):
                target.writestr(f"model{suffix}", data)
    return out


def nodes(program: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = program["graph_module"]["graph"]["nodes"]
    return found


def signature(program: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = program["graph_module"]["module_call_graph"][0]["signature"]
    return found


def calls(target: str) -> Edit:
    def edit(program: dict[str, Any]) -> None:
        nodes(program)[0]["target"] = target

    return edit


def evil_expression(program: dict[str, Any]) -> None:
    program["range_constraints"] = {"s0": {"expr_str": "__import__('os').system('true')"}}


def evil_argument(program: dict[str, Any]) -> None:
    """An operator handed to another operator."""
    nodes(program)[0]["inputs"][0]["arg"] = {"as_operator": "_operator.attrgetter"}


def evil_input_name(program: dict[str, Any]) -> None:
    """Input names become parameters of a function whose source is executed."""
    signature(program)["forward_arg_names"] = ["a=__import__('os').system('true')", "b"]


def evil_key(program: dict[str, Any]) -> None:
    """So do keys of keyword arguments, inside quotes."""
    version, tree = json.loads(signature(program)["in_spec"])
    tree["children_spec"][1]["context"] = json.dumps(["a", "b':print('owned'),'c"])
    signature(program)["in_spec"] = json.dumps([version, tree])


def evil_weight_name(program: dict[str, Any]) -> None:
    """And paths of weights."""
    specs = program["graph_module"]["signature"]["input_specs"]
    next(s for s in specs if "parameter" in s)["parameter"]["parameter_name"] = 'w"); print("owned'


def imported_type(program: dict[str, Any]) -> None:
    """A tree specification that imports a module when it is read."""
    context = {"default_factory_module": "antigravity", "default_factory_name": "x", "dict_context": []}
    tree = {"type": "collections.defaultdict", "context": context, "children_spec": []}
    signature(program)["out_spec"] = json.dumps([1, tree])


def imported_constant(program: dict[str, Any]) -> None:
    context = json.dumps([{"__enum__": True, "fqn": "antigravity:X", "name": "x"}])
    leaf = {"type": None, "context": None, "children_spec": []}
    tree = {"type": "builtins.dict", "context": context, "children_spec": [leaf]}
    signature(program)["out_spec"] = json.dumps([1, tree])


def test_an_honest_file_passes(exported: Path) -> None:
    refuse_code(exported)


def test_honest_operators_pass(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    model, x = Masked().eval(), torch.randn(3, 4)
    TorchEager().export(model, x, path)
    session = TorchEager().load(path, threads=1)
    torch.testing.assert_close(torch.from_numpy(session.run({"input": x.numpy()})["output"]), model(x))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"replace": {"/data/sample_inputs/model.pt": b"\x80\x04."}}, "sample inputs"),
        ({"replace": {"/data/aotinductor/model/x.so": b"ELF"}}, "compiled"),
        (
            {"replace": {"model_constants_config.json": b'{"config": {"c": {"path_name": "c", "use_pickle": true}}}'}},
            "pickled",
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
def test_files_that_could_run_code_are_refused(exported: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ArtifactError, match=words):
        TorchEager().load(tampered(exported, **change), threads=1)


def test_the_attacks_are_real(exported: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without the check, a weight's name is executed as Python: this is what the tests above are about."""
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
        refuse_code(path)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 truncated"])
def test_corrupt_files_are_artifact_errors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pt2"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"not a \.pt2 archive"):
        TorchEager().load(path, threads=1)


def test_a_shipped_file_says_nothing_of_where_it_was_made(exported: Path) -> None:
    with zipfile.ZipFile(exported) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert Path(__file__).name.encode() not in content
    assert b"stack_trace" not in content
    assert b"TwoInputs" not in content
