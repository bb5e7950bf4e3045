"""What a model looked up before petra had it does not outlive the weights that it was made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from petra.core.pipeline import Pipeline
from petra.execute.apply import apply_pipeline
from petra.execute.remembered import forget_what_is_made_again
from petra.methods.base import Context
from petra.tasks.classification import classification


class Attention(nn.Module):
    """Relative position biases looked up once, whether or not gradients are wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 4, 4
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.table = nn.Parameter(torch.randn(9, 4))
        self.places = torch.arange(5)[:, None] - torch.arange(5) + 4  # a constant
        self.by_length: dict[int, Tensor] = {}
        self.scale: dict[str, Any] = {"fixed": torch.tensor(0.5)}
        self.maps: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        if t not in self.by_length:
            self.by_length[t] = self.table[self.places].permute(2, 0, 1)
        if not hasattr(self, "gain"):
            self.gain = self.proj.bias.mean()
        q, k, v = self.qkv(x).reshape(n, t, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(
            q @ k.transpose(-2, -1) * self.scale["fixed"] + self.by_length[t], -1
        )
        self.maps.append(weights)
        return self.gain * x + self.proj((weights @ v).transpose(1, 2).flatten(2))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.fc = Attention(), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.attention(x).mean(1))


def _used() -> Net:
    """A model that its owner has evaluated."""
    model = Net().eval()
    with torch.no_grad():
        model(torch.randn(4, 5, 16))
    return model


def test_what_comes_back_goes_and_constants_stay() -> None:
    model, x = _used(), torch.randn(2, 5, 16)
    with torch.no_grad():
        expected = model(x)
        assert set(forget_what_is_made_again(model, x)) == {
            "attention.by_length",
            "attention.gain",
            "attention.maps",
        }
        assert model.attention.by_length == {}
        assert torch.equal(model(x), expected)
    assert forget_what_is_made_again(nn.Sequential(nn.Linear(2, 2)), torch.randn(2, 2)) == ()


def test_stages_work_on_a_model_that_was_used_before() -> None:
    x, y = torch.randn(64, 5, 16), torch.randint(0, 3, (64,))
    task = classification((x[:32], y[:32]), (x[32:48], y[32:48]), (x[48:], y[48:]))
    model = _used()
    for stage, params in (
        ("prune.heads", {"ratio": 0.25}),
        ("tune", {"epochs": 1, "batch_size": 16, "lr": 0.1}),
    ):
        result, (trace,) = apply_pipeline(
            model,
            Pipeline.from_list([{"stage": stage, "params": params}]),
            lambda prefix: Context(task=task, teacher=model, seed=1),
            cache=None,
            on_stage=lambda index, spec: None,
        )
        fresh = Net().eval()
        if stage == "tune":
            assert "attention" in trace.touched, "the table is trained"
            fresh.load_state_dict(result.state_dict())
            with torch.no_grad():
                torch.testing.assert_close(
                    result(x), fresh(x), msg="nothing looked up is older than the weights"
                )
    assert len(model.attention.maps) == 1, "the owner's model stays as it is"
