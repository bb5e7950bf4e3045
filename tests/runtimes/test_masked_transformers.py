"""torch's own transformers under padding and causal masks: what files compute is what the model
does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from petra.core.pipeline import Pipeline
from petra.execute.apply import apply_pipeline
from petra.methods.base import Context
from petra.methods.quantize.ptq import trace
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.runtimes.torch_eager import TorchEager
from petra.tasks.classification import classification
from petra.tasks.inputs import Inputs, call, named, named_outputs

WIDTH, LENGTH = 8, 5
CAUSAL = nn.Transformer.generate_square_subsequent_mask(LENGTH)


def _layer(*, batch_first: bool, norm_first: bool) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=batch_first, norm_first=norm_first)


class Encoder(nn.Module):
    """A mask from where people take it: a buffer, made in the forward pass (float or bool), or an
    input."""

    def __init__(self, mask: str, *, batch_first: bool = True, norm_first: bool = False) -> None:
        super().__init__()
        self.kind, self.batch_first = mask, batch_first
        self.encoder = nn.TransformerEncoder(
            _layer(batch_first=batch_first, norm_first=norm_first), 1
        )
        self.register_buffer("mask", CAUSAL)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        n = x.shape[1]
        match self.kind:
            case "buffer":
                mask = self.mask
            case "made":
                mask = nn.Transformer.generate_square_subsequent_mask(n)
            case "boolean":
                mask = torch.ones(n, n, dtype=torch.bool).triu(1)
            case "input":
                mask = None if mask is None else mask[0]
        if self.batch_first:
            return self.encoder(x, mask=mask)
        return self.encoder(x.transpose(0, 1), mask=mask).transpose(0, 1)


class Whole(nn.Module):
    def __init__(self, *, norm_first: bool = False) -> None:
        super().__init__()
        self.transformer = nn.Transformer(
            WIDTH, 2, 1, 1, 16, batch_first=True, norm_first=norm_first
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.transformer(
            x, 2 * x, tgt_mask=nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        )


class Captions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(WIDTH, 2, 16, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, 1)
        self.register_buffer("mask", CAUSAL)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(x, x[:, :3], tgt_mask=self.mask, tgt_key_padding_mask=x[..., 0] > 1)


X = torch.randn(2, LENGTH, WIDTH)
MODELS: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "buffer": (lambda: Encoder("buffer"), X),
    "made": (lambda: Encoder("made", norm_first=True), X),
    "boolean, time first": (lambda: Encoder("boolean", batch_first=False), X),
    "input": (lambda: Encoder("input"), (X, CAUSAL.expand(2, -1, -1))),
    "whole": (Whole, X),
    "whole, norm first": (lambda: Whole(norm_first=True), X),
    "decoder": (Captions, X),
}


SLOW = ("made", "input", "whole", "whole, norm first")  # of what others show in parts


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] if k in SLOW else []) for k in MODELS]
)
def test_causal_masks_are_traced_and_exported(kind: str, tmp_path: Path) -> None:
    make, example = MODELS[kind]
    model = make().eval()
    more = [torch.cat([t, t, t[:1]]) for t in named(example).values()]
    more[0] = torch.randn(5, LENGTH, WIDTH)
    inputs: Inputs = tuple(more) if isinstance(example, tuple) else more[0]
    with torch.no_grad():
        expected = named_outputs(call(model, inputs))["output"]
        if kind in ("input", "decoder"):
            traced = named_outputs(call(trace(model, example), inputs))["output"]
            torch.testing.assert_close(traced, expected, atol=1e-5, rtol=1e-4)
    later = more[0].clone()
    later[:, -1] += 1
    changed = call(model, (later, *more[1:]) if isinstance(example, tuple) else later)
    assert isinstance(changed, Tensor)
    if not kind.startswith("whole"):  # whose encoder sees all
        torch.testing.assert_close(
            changed[:, :-1], expected[:, :-1], msg="no position sees a later one"
        )
    for runtime in (OnnxRuntime(), TorchEager())[: 2 if kind in ("buffer", "whole") else 1]:
        (path,) = runtime.export(model, example, tmp_path / f"model{runtime.suffix}")
        got = runtime.load(path).run({name: t.numpy() for name, t in named(inputs).items()})
        np.testing.assert_allclose(got["output"], expected, atol=1e-5)


@pytest.mark.parametrize("boolean", [False, True])
def test_a_position_that_sees_nothing_is_zero_in_the_file_as_in_pytorch(
    boolean: bool, tmp_path: Path
) -> None:
    model = Captions().eval()
    if boolean:
        model.mask = model.mask.isinf()
    x = torch.randn(5, LENGTH, WIDTH)
    x[:3, 0, 0], x[3:, 0, 0] = 2.0, 0.0  # the first of the others is no padding
    with torch.no_grad():
        expected = named_outputs(call(model, x))["output"].numpy()
    assert np.isfinite(expected).all()
    (path,) = OnnxRuntime().export(model, X, tmp_path / "model.onnx")
    session = OnnxRuntime().load(path)
    got = session.run({session.input_names[0]: x.numpy()})["output"]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_where_a_mask_of_the_model_itself_hides_no_row_nothing_is_asked(tmp_path: Path) -> None:
    (path,) = OnnxRuntime().export(Encoder("buffer").eval(), X, tmp_path / "model.onnx")
    written = {node.op_type for node in onnx.load(path).graph.node}
    assert "Softmax" in written
    assert not written & {"Where", "ReduceMax", "Equal"}


class Pooled(nn.Module):
    """The mean over all positions, padded ones included."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoder(_layer(batch_first=True, norm_first=False), 2)
        self.fc = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.encoder(x, src_key_padding_mask=x[..., 0] > 9).mean(1))


def _padded(n: int) -> Tensor:
    x = torch.randn(n, LENGTH, WIDTH)
    x[::2, 3:, 0] = 10.0
    return x


@pytest.mark.parametrize("kind", ["", "lowrank.svd", "prune.heads", "prune.depth"])
def test_what_stages_make_of_a_padded_encoder_runs_as_its_file_does(
    kind: str, tmp_path: Path
) -> None:
    model = Pooled().eval()
    data = [(_padded(n), torch.randint(0, 3, (n,))) for n in (32, 16, 16)]
    params = (
        {"rule": "ratio", "ratio": 0.3}
        if kind == "lowrank.svd"
        else {"ratio": 0.5}
        if "heads" in kind
        else {}
    )
    result, _ = apply_pipeline(
        model,
        Pipeline.from_list([{"stage": kind, "params": params}] if kind else []),
        lambda prefix: Context(task=classification(*data), teacher=model, seed=1),
        cache=None,
        on_stage=lambda index, spec: None,
    )
    (path,) = OnnxRuntime().export(result, data[1][0][:2], tmp_path / "model.onnx")
    x = data[2][0]
    got = OnnxRuntime().load(path).run({"input": x.numpy()})["output"]
    with torch.no_grad():
        own = result.eval()(x)  # as a person runs it, with torch's fused layers allowed
        np.testing.assert_allclose(got, own, atol=1e-5)
        if not kind:
            assert not torch.allclose(model(x), own), "the fused layers of the original leave zeros"
