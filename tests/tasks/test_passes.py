"""A forward pass leaves the model as it was, and torch's transformer layers compute what files
hold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from petra.tasks.inputs import call
from petra.tasks.passes import one_pass


class Store:
    def __init__(self) -> None:
        self.maps: dict[str, Tensor] = {}


class Biased(nn.Module):
    """Position biases looked up once, in the ways that people look up once; a counter and a moving
    average."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(4, 4))
        self.mask = torch.ones(4, 4)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("late", None, persistent=False)
        self.cache: Tensor | None = None
        self.by_width: dict[int, Tensor] = {}
        self.seen: list[Tensor] = []
        self.store = Store()
        self.ready, self.calls = False, 0
        self.child = Counter()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.cache is None:
            self.cache = self.table * self.mask
        if not self.ready:
            self.flat, self.ready = self.table.sum(0), True
        if x.shape[1] not in self.by_width:
            self.by_width[x.shape[1]] = self.table[0]
        if "a" not in self.store.maps:
            self.store.maps["a"] = self.table[1]
        if not hasattr(self, "frequencies"):
            self.register_buffer("frequencies", self.table[2], persistent=False)
        if self.late is None:
            self.late = self.table[3]
        if self.training:
            self.mean = self.mean.lerp(x.detach().mean(0), 0.1)
        fixed = (
            self.flat
            + self.by_width[x.shape[1]]
            + self.store.maps["a"]
            + self.frequencies
            + self.late
        )
        y = self.child(x @ self.cache + fixed)
        self.seen.append(y)
        return y


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


def _state(model: Biased) -> dict[str, Any]:
    own = {
        k: v
        for k, v in vars(model).items()
        if not k.startswith("_") and k not in ("training", "calls")
    }
    return {
        **own,
        "names": list(model._buffers),
        "late": model.late,
        "maps": dict(model.store.maps),
    }


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_what_a_pass_keeps_goes_with_it_and_follows_the_weights(
    gradients: bool, training: bool
) -> None:
    model, x = Biased().train(training), torch.randn(3, 4)
    before = _state(model)
    with torch.set_grad_enabled(gradients):
        first = call(model, x)
    if gradients or not training:
        assert _state(model) == {**before, "mask": model.mask}
        with torch.no_grad():
            model.table.mul_(2)
        assert isinstance(first, Tensor)
        torch.testing.assert_close(call(model, x), 2 * first)


def test_a_model_can_be_trained_that_looks_up_once() -> None:
    model, x = Biased().train(), torch.randn(3, 4)
    for _ in range(3):
        output = call(model, x)
        assert isinstance(output, Tensor)
        output.square().sum().backward()
    assert model.table.grad is not None
    assert model.mean.any(), "averages go on"
    assert model.child.calls == 3, "so do counters"


def test_tensors_of_a_trace_do_not_stay() -> None:
    model = Biased().eval()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, one_pass(model):
        model(mode.from_tensor(torch.randn(3, 4)))
    assert model.cache is None
    assert model.seen == []
    assert type(call(model, torch.randn(3, 4))) is Tensor


def test_what_is_put_back_is_what_was_there() -> None:
    model, x = Biased().eval(), torch.randn(3, 4)
    with torch.no_grad():
        model(x)
    cache, seen = model.cache, list(model.seen)
    call(model, x)
    assert model.cache is cache
    assert [id(t) for t in model.seen] == [id(t) for t in seen]


@torch.no_grad()
def test_padded_positions_have_the_values_that_training_sees() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model, x = nn.TransformerEncoder(layer, 2), torch.randn(2, 5, 8)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    inputs = {"src": x, "src_key_padding_mask": padding}
    trained = model.train()(**inputs)
    fused = model.eval()(**inputs)
    assert not fused[1, 3:].any(), "torch's fused form leaves zeros"
    torch.testing.assert_close(call(model, inputs), trained)
    assert torch.backends.mha.get_fastpath_enabled(), "only inside"
