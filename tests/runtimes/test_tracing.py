"""Models are traced as they are called, and what cannot be traced is said with its place and
nothing else."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from petra.core.errors import ExportError, StageRefused
from petra.methods.quantize.ptq import trace
from petra.runtimes.base import Runtime
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.runtimes.torch_eager import TorchEager
from petra.tasks.inputs import Inputs, call, named, named_outputs


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))


class ByName(Net):
    def forward(self, **inputs: Tensor) -> Tensor:
        return super().forward(inputs["x"] - 2 * inputs["y"])


class Positional(Net):
    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        return super().forward(x - 2 * others[0])


class Both(Net):
    def forward(self, x: Tensor, **others: Tensor) -> Tensor:
        return super().forward(x - 2 * others["y"])


def _scaled(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(forward)  # says that it has the argument that it gives
    def wrapped(self: nn.Module, x: Tensor) -> Tensor:
        return forward(self, x, 1.5)

    return wrapped


class Decorated(Net):
    @_scaled
    def forward(self, x: Tensor, scale: float) -> Tensor:
        return self.b(torch.relu(self.a(x)) * scale)


def _partial() -> nn.Module:
    model = Net()
    model.forward = functools.partial(Net.forward, model)  # type: ignore[method-assign]
    return model


def _replaced() -> nn.Module:
    model = Net()
    forward = model.forward
    model.forward = lambda *args, **kwargs: forward(*args, **kwargs)  # type: ignore[method-assign]
    return model


def _hooked() -> nn.Module:
    model = ByName()
    model.register_forward_pre_hook(
        lambda m, args, kwargs: (args, {**kwargs, "x": kwargs["x"] * 3}), with_kwargs=True
    )
    model.register_forward_hook(
        lambda m, args, kwargs, out: out + kwargs["y"][:, :2], with_kwargs=True
    )
    return model


ONE, TWO = torch.randn(2, 4), torch.randn(2, 4)
KEYED: Inputs = {"y": ONE, "x": TWO}
CALLS: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "**kwargs": (ByName, KEYED),
    "*args": (Positional, (ONE, TWO)),
    "x and **kwargs": (Both, KEYED),
    "a decorator that gives an argument": (Decorated, ONE),
    "partial": (_partial, ONE),
    "replaced": (_replaced, ONE),
    "hooks with kwargs": (_hooked, KEYED),
    "DataParallel": (lambda: nn.DataParallel(Net()), (ONE,)),
    "DataParallel by name": (lambda: nn.DataParallel(ByName()), KEYED),
}


@pytest.mark.parametrize("runtime", [OnnxRuntime(), TorchEager()], ids=lambda r: r.name)
@pytest.mark.parametrize("kind", CALLS)
def test_every_way_of_taking_arguments(kind: str, runtime: Runtime, tmp_path: Path) -> None:
    make, example = CALLS[kind]
    model = make().eval()
    (path,) = runtime.export(model, example, tmp_path / f"model{runtime.suffix}")
    session = runtime.load(path)
    assert list(session.input_names) == list(named(example))
    more = {name: torch.randn(5, 4) for name in named(example)}
    got = session.run({name: tensor.numpy() for name, tensor in more.items()})["output"]
    values = more if isinstance(example, dict) else tuple(more.values())
    with torch.no_grad():
        expected = named_outputs(call(model, values))["output"].numpy()
        np.testing.assert_allclose(got, expected, atol=1e-5)
        np.testing.assert_allclose(
            named_outputs(call(trace(model, example), values))["output"], expected, atol=1e-5
        )
    assert "forward" not in vars(model) or kind in (
        "partial",
        "replaced",
    ), "the model is left as it was"


class Odd(nn.Module):
    """A layer that does something with what it is given."""

    def __init__(self, what: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.what = what

    def forward(self, x: Tensor) -> Tensor:
        return self.what(x)


def _branch(x: Tensor) -> Tensor:
    if x.sum() > 0:  # here
        return x
    return -x


def _by_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(np.sign(x.numpy()))  # here


def _fixed(x: Tensor) -> Tensor:
    return x.reshape(2, 2, 2).flatten(1)  # here


def _loop(x: Tensor) -> Tensor:
    return torch.stack([row * 2 for row in x])  # here


def _length(x: Tensor) -> Tensor:
    return x[:, : int(x.abs().max()) + 1]  # here


def _wrong(x: Tensor) -> Tensor:
    return x @ x  # here


VALUES, SIZES = "goes by the values of a tensor", "fixes the size"


@pytest.mark.parametrize(
    ("what", "said", "remedy"),
    [
        (_branch, VALUES, "torch.where"),
        (_length, VALUES, "torch.where"),
        (_by_numpy, "numpy", "no NumPy"),
        (_fixed, SIZES, r"x.shape\[0\]"),
        (_loop, SIZES, r"x.shape\[0\]"),
        (_wrong, "the model itself fails.*mat1 and mat2", "must run"),
    ],
)
def test_what_cannot_be_traced_is_named_by_place(
    what: Callable[[Tensor], Tensor],
    said: str,
    remedy: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    model = nn.Sequential(nn.Identity(), nn.Sequential(Odd(what))).eval()
    attempts: list[tuple[type[Exception], Callable[[], Any]]] = [
        (
            ExportError,
            lambda: OnnxRuntime().export(model, torch.randn(2, 4), tmp_path / "model.onnx"),
        ),
        (
            ExportError,
            lambda: TorchEager().export(model, torch.randn(2, 4), tmp_path / "model.pt2"),
        ),
        (StageRefused, lambda: trace(model, torch.randn(2, 4))),
    ]
    line = _line(what)
    for kind, attempt in attempts:
        with pytest.raises(kind, match=rf"(?s){said}.*{remedy}") as raised:
            attempt()
        message = str(raised.value)
        assert "'1.0'" in message
        assert f"test_tracing.py:{line} `" in message
        assert len(message) < 700
        assert "def forward" not in message
    assert logging.root.manager.disable == logging.NOTSET
    assert capfd.readouterr() == ("", ""), "no graph reaches the terminal"


def _line(function: Callable[..., Any]) -> int:
    """The line of a function that ends with '# here'."""
    first = function.__code__.co_firstlineno
    lines = Path(__file__).read_text().splitlines()
    return next(n for n, text in enumerate(lines, 1) if n > first and text.endswith("# here"))
