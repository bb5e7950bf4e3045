"""Recurrent networks over items of any length, and what each runtime computes of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from petra.core.interface import BATCH, DICT, LENGTH, TENSOR, Axis, Interface, TensorSpec
from petra.core.target import Target
from petra.runtimes.base import LoadedModel
from petra.runtimes.table import runtime_for
from petra.tasks.inputs import call

FEATURES, HIDDEN, CLASSES = 5, 6, 3


class Classifier(nn.Module):
    """The mean of all outputs, and the final states, classified."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.rnn = kind(FEATURES, HIDDEN, **options)
        directions = 2 if self.rnn.bidirectional else 1
        self.head = nn.Linear(HIDDEN * directions * (1 + self.rnn.num_layers), CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out, state = self.rnn(x if self.rnn.batch_first else x.transpose(0, 1))
        h = state[0] if isinstance(state, tuple) else state
        mean = out.mean(1 if self.rnn.batch_first else 0)
        return self.head(torch.cat([mean, h.transpose(0, 1).flatten(1)], 1))


class Packed(nn.Module):
    """The same over packed items, and the outputs of every step."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.rnn = kind(FEATURES, HIDDEN, batch_first=True, **options)
        directions = 2 if self.rnn.bidirectional else 1
        self.head = nn.Linear(HIDDEN * directions * self.rnn.num_layers, CLASSES)

    def forward(self, x: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        out, state = self.rnn(packed)
        steps, _ = pad_packed_sequence(out, batch_first=True, padding_value=0.5)
        states = state if isinstance(state, tuple) else (state,)
        logits = self.head(states[0].transpose(0, 1).flatten(1))
        return {"logits": logits, "steps": steps, "last": states[-1].transpose(0, 1)}


class Called(nn.Module):
    """Two layers in two directions, called in every way: with first states that are an input, with
    those that it ended with, on one sequence without a batch; and a twin that has one of its
    weights. States are returned."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(FEATURES, HIDDEN, num_layers=2, bidirectional=True, batch_first=True)
        self.twin = nn.LSTM(FEATURES, HIDDEN, batch_first=True)
        self.twin.weight_hh_l0 = self.rnn.weight_hh_l0

    def forward(self, x: Tensor, h: Tensor) -> dict[str, Tensor]:
        states = h.transpose(0, 1).contiguous()
        out, ended = self.rnn(x, (states, states.tanh()))
        again, (last, cell) = self.rnn(x.flip(1), ended)
        alone, _ = self.rnn(x.mean(0))
        _, (other, _) = self.twin(x)
        return {
            "out": out + again + alone,
            "last": last.transpose(0, 1),
            "cell": cell.transpose(0, 1),
            "other": other[-1],
        }


class Edited(nn.Module):
    """Packed data that are computed with before a layer and written to behind it. Items come with
    the longest first, their lengths in 32 bits, and go as long as they came."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.rnn = nn.Linear(FEATURES, 8), nn.GRU(8, HIDDEN)

    def forward(self, x: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        packed = pack_padded_sequence(x, lengths.int().cpu(), batch_first=True)
        inner = packed._replace(data=torch.relu(self.project(packed.data)))
        out, state = self.rnn(inner)
        out.data.add_(1.0)
        steps, _ = pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])
        return {"steps": steps, "last": state[-1]}


class Projected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(FEATURES, HIDDEN, proj_size=3, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rnn(x)[0]
        return out.mean(1)


def free(**axes: tuple[str, tuple[Axis, ...]]) -> Interface:
    """An interface of inputs by name: type and axes."""
    specs = tuple(TensorSpec(name, dtype, a, 0) for name, (dtype, a) in axes.items())
    return Interface(specs, structure=TENSOR if "input" in axes else DICT)


STEPS = ("float32", (Axis(BATCH), Axis(LENGTH, 1, 50, (5, 9)), Axis.fixed(FEATURES)))
SERIES = free(input=STEPS)
PACKED = free(x=STEPS, lengths=("int64", (Axis(BATCH),)))


def items(n: int, length: int) -> Tensor:
    return torch.randn(n, length, FEATURES, generator=torch.Generator().manual_seed(n * length))


def packed_items(lengths: list[int]) -> dict[str, Tensor]:
    """Items of these lengths, with noise behind their ends."""
    return {"x": items(len(lengths), max(lengths)), "lengths": torch.tensor(lengths)}


def exported(
    model: nn.Module, example: Any, interface: Interface, folder: Path, runtime: str
) -> LoadedModel:
    """The model as a file of the runtime, loaded."""
    made = runtime_for(Target(runtime))
    path, *_ = made.export(model.eval(), example, folder / f"model{made.suffix}", interface)
    return made.load(path)


def compare(
    session: LoadedModel, model: nn.Module, inputs: Tensor | Mapping[str, Tensor], atol: float
) -> None:
    """Hold the file to the model."""
    named = {"input": inputs} if isinstance(inputs, Tensor) else dict(inputs)
    with torch.no_grad():
        expected = call(model, inputs if isinstance(inputs, Tensor) else dict(inputs))
    if isinstance(expected, Tensor):
        expected = {"output": expected}
    got = session.run({name: tensor.numpy() for name, tensor in named.items()})
    for name, tensor in expected.items():
        np.testing.assert_allclose(got[name], tensor.numpy(), atol=atol, err_msg=name)
