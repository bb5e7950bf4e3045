"""The patch transformer: scale, channels, patches, and Hugging Face's PatchTST as the oracle."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from petra.core.errors import ConfigError
from petra.model.flops import macs_by_module
from petra.model.surgery import count_parameters
from petra.networks.patch_transformer import InstanceScale, PatchTransformer

CHANNELS, CONTEXT, HORIZON = 3, 45, 6
QUANTILES = (0.1, 0.5, 0.9)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def settled(**options: object) -> PatchTransformer:
    """A network whose norms have seen data."""
    model = PatchTransformer(CHANNELS, CONTEXT, HORIZON, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for _ in range(3):
            model(windows(32))
    return model.eval()


def windows(n: int) -> Tensor:
    return torch.randn(n, CHANNELS, CONTEXT).cumsum(2)


@pytest.mark.parametrize("quantiles", [(), QUANTILES])
@pytest.mark.parametrize("n", [1, 4])
def test_shapes(quantiles: tuple[float, ...], n: int) -> None:
    shape = (n, CHANNELS, HORIZON, *([len(quantiles)] if quantiles else []))
    assert settled(quantiles=quantiles)(windows(n)).shape == shape


def test_sizes_are_as_documented() -> None:
    model = PatchTransformer(7, 336, 96).eval()
    assert model.position.shape[0] == 42  # PatchTST/42
    assert count_parameters(model) == 81_728
    macs = macs_by_module(model, lambda m: m(torch.randn(1, 7, 336)))[""]
    assert macs == 6_228_096
    assert "81,728 parameters and 6.2 million" in " ".join((type(model).__doc__ or "").split())


# -- scale -----------------------------------------------------------------------------------------


def test_what_is_normalised_is_restored() -> None:
    x = 10 * torch.randn(4, CHANNELS, 1) + windows(4) * (0.1 + torch.rand(4, CHANNELS, 1))
    scale = InstanceScale.of(x)
    z = scale.normalise(x)
    torch.testing.assert_close(z.mean(-1), torch.zeros(4, CHANNELS), atol=1e-3, rtol=0)
    torch.testing.assert_close(z.std(-1, correction=0), torch.ones(4, CHANNELS), atol=1e-2, rtol=0)
    torch.testing.assert_close(scale.restore(z), x)


@pytest.mark.parametrize("quantiles", [(), QUANTILES])
@torch.no_grad()
def test_forecasts_move_and_grow_with_the_series(quantiles: tuple[float, ...]) -> None:
    model, x = settled(quantiles=quantiles), windows(4)
    torch.testing.assert_close(model(5.0 * x + 100.0), 5.0 * model(x) + 100.0, atol=5e-3, rtol=1e-4)


@torch.no_grad()
def test_a_constant_series_has_a_finite_forecast_near_it() -> None:
    y = settled()(torch.full((1, CHANNELS, CONTEXT), 7.0))
    torch.testing.assert_close(y, torch.full_like(y, 7.0), atol=0.1, rtol=0)


# -- channels --------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_channel_is_forecast_by_itself() -> None:
    model, x = settled(), windows(4)
    y = model(x)
    other = x.clone()
    other[:, 1] += torch.randn(4, CONTEXT)
    assert not torch.allclose(model(other)[:, 1], y[:, 1], atol=1e-2)
    torch.testing.assert_close(model(other)[:, [0, 2]], y[:, [0, 2]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model(x[:, [2, 0, 1]]), y[:, [2, 0, 1]], atol=1e-4, rtol=1e-4)


# -- an oracle -------------------------------------------------------------------------------------


@pytest.mark.slow
@torch.no_grad()
def test_it_is_what_hugging_face_makes_of_the_same_patches_and_weights() -> None:
    """Their patches begin at the end of the series; ours, the paper's, at its start."""
    transformers = pytest.importorskip("transformers", reason="the extra `text` is not installed")
    patches = (CONTEXT - 16) // 8 + 2
    config = transformers.PatchTSTConfig(
        num_input_channels=CHANNELS, context_length=CONTEXT + 8, patch_length=16, patch_stride=8,
        num_hidden_layers=3, d_model=16, num_attention_heads=4, ffn_dim=128, pre_norm=False,
        norm_eps=1e-5, scaling="std", use_cls_token=False, pooling_type=None, loss="mse",
        prediction_length=HORIZON, positional_encoding_type="random",
    )  # fmt: skip
    theirs, ours = transformers.PatchTSTForPrediction(config).eval(), settled()
    _copy(ours, theirs)
    x = windows(4)
    scale = InstanceScale.of(x)
    z = scale.normalise(x)
    filled = torch.cat([z, z[..., -1:].expand(-1, -1, 8)], -1)
    cut = torch.stack([filled[..., 8 * i : 8 * i + 16] for i in range(patches)], 2)
    hidden = theirs.model.encoder(patch_input=cut).last_hidden_state
    expected = scale.restore(theirs.head(hidden).transpose(1, 2))
    torch.testing.assert_close(ours(x), expected, atol=1e-4, rtol=1e-4)


def _copy(ours: PatchTransformer, theirs: torch.nn.Module) -> None:
    """Give theirs our weights and statistics."""
    encoder = theirs.model.encoder
    encoder.embedder.input_embedding.weight.copy_(ours.embed.weight[:, 0])
    encoder.embedder.input_embedding.bias.copy_(ours.embed.bias)
    encoder.positional_encoder.position_enc.copy_(ours.position)
    for own, other in zip(ours.layers, encoder.layers, strict=True):
        other.self_attn.load_state_dict(own.attention.state_dict())
        other.ff.load_state_dict(own.feed_forward.state_dict())
        other.norm_sublayer1.batchnorm.load_state_dict(own.norm1.state_dict())
        other.norm_sublayer3.batchnorm.load_state_dict(own.norm2.state_dict())
    theirs.head.projection.load_state_dict(ours.head.state_dict())


# -- refusals --------------------------------------------------------------------------------------


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="10 steps are less than a patch of 16"):
        PatchTransformer(1, 10, 4)
    with pytest.raises(ConfigError, match="3 do not divide a width of 16"):
        PatchTransformer(1, 32, 4, heads=3)
