"""`petra package`: what it says, what it leaves behind, and a real package of a convolutional
network.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from petra.cli.main import app
from petra.runtimes import torch_compile
from petra.runtimes.torch_compile import TorchCompile
from petra.runtimes.torch_eager import TorchEager
from petra.testing.studies import write_onnx

X = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def petra(*arguments: object) -> Result:
    """Run a command in this process. A bug shows as itself."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def program(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    ]
    return TorchEager().export(nn.Sequential(*layers).eval(), X[:2], tmp_path / "model.pt2")[0]


@pytest.mark.slow  # a minute of a C++ compiler
def test_a_package_computes_what_the_program_computes_and_petra_does_not_open_it(
    program: Path,
) -> None:
    if missing := TorchCompile().lacks():
        pytest.skip(missing)
    found = json.loads(petra("package", program, "--json").stdout)
    package = program.with_name("model.aot.pt2")
    assert found["package"] == str(package)
    assert found["bytes"] == package.stat().st_size
    assert found["threads"] == 1
    assert found["relative_error"] < 1e-5
    compiled = torch._inductor.aoti_load_package(str(package))
    expected = TorchEager().load(program).run({"input": X.numpy()})["output"]
    for n in (1, 5):
        np.testing.assert_allclose(compiled(X[:n]).numpy(), expected[:n], atol=1e-5)
    refused = petra("verify", package)
    assert refused.exit_code == 2
    assert "compiled" in refused.output


def stub(monkeypatch: pytest.MonkeyPatch, program: Path, sign: int) -> None:
    """A compiler that writes a few bytes, which compute `sign` times what the program computes."""
    module = torch.export.load(str(program)).module(check_guards=False)
    monkeypatch.setattr(torch_compile, "cpp_compiler", lambda: "stub")
    monkeypatch.setattr(
        torch._inductor,
        "aoti_compile_and_package",
        lambda program, package_path: Path(package_path).write_bytes(b"compiled"),
    )
    monkeypatch.setattr(
        torch._inductor, "aoti_load_package", lambda path: lambda x: sign * module(x)
    )


@pytest.mark.slow
def test_it_says_what_it_wrote_and_warns(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub(monkeypatch, program, 1)
    place = program.parent / "fast.pt2"
    result = petra("package", program, "--to", place, "--threads", 2)
    said = " ".join(result.stdout.split())
    assert result.exit_code == 0
    assert f"{place}: 8 B, for 2 thread(s)" in said
    assert f"agrees with {program}" in said
    assert "petra does not load it" in said
    assert place.read_bytes() == b"compiled"


@pytest.mark.slow
def test_a_package_that_disagrees_is_an_error_and_not_left_behind(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(monkeypatch, program, -1)
    result = petra("package", program)
    assert result.exit_code == 2
    assert "differs by" in result.output
    assert [f.name for f in program.parent.iterdir()] == ["model.pt2"]


def test_mistakes_are_answered(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answered(*arguments: object) -> str:
        result = petra("package", *arguments)
        assert result.exit_code == 2
        return " ".join(result.output.split())

    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no C++ compiler (no-such-compiler)" in answered(program)
    assert "no such file" in answered(program.with_name("gone.pt2"))
    assert "not a .pt2 archive" in answered(write_onnx(program.with_name("model.onnx"), hidden=4))
