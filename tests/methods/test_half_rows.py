"""Half precision with rows of 8 bits: which layers get them, and what they compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from half_parts import halved, towers
from torch import Tensor, nn

from petra.model.layers.row_scaled import RowwiseLinear, rowwise_linear


@pytest.mark.parametrize("name", ["int8", "float8"])
def test_linear_layers_that_fit_get_8_bit_rows_and_the_others_say_why_not(name: str) -> None:
    model, task = towers()
    result, trace = halved(model, task, linear=name)
    replaced = {path for path, m in result.named_modules() if isinstance(m, RowwiseLinear)}
    assert replaced == {"body.0", "body.2"}
    assert "multiples of 16" in trace.skipped["head"]
    assert "twins.1" in trace.skipped["twins.0"]
    rows, twins, head, table = 2 * 32 * 64, 32 * 32, 32 * 3, 10 * 32
    biases, scales, all_macs = 64 + 32 + 32 + 32 + 3, 64 + 32, rows + 2 * twins + head
    expected = {
        "share_of_layers": 2 / 6,
        "share_of_macs": rows / all_macs,
        "share_of_macs_8_bit": rows / all_macs,
        "share_of_weights": rows / (rows + twins + head + table + biases),
        "share_of_bytes": rows / (rows + 2 * (twins + head + table + biases) + 4 * scales),
    }
    assert {key: trace.details[key] for key in expected} == pytest.approx(expected, abs=1e-4)
    floats = {
        trace.skipped[path]: n
        for path, n in (("twins.0", twins), ("twins.1", twins), ("head", head))
    }
    assert trace.details["float_macs"] == pytest.approx(
        {why: n / all_macs for why, n in floats.items()}, abs=1e-4
    )
    _, trace = halved(model, task, linear=name, exclude="body.0")
    assert trace.skipped["body.0"] == "excluded"


def test_int8_rows_against_integers() -> None:
    """Weights and activations by symmetric codes with a scale per row; sums in integers."""
    g = torch.Generator().manual_seed(0)
    W, x, b = (
        torch.randn(16, 48, generator=g),
        torch.randn(5, 48, generator=g),
        torch.randn(16, generator=g),
    )
    layer = RowwiseLinear(W, nn.Parameter(b), torch.int8)

    def codes(rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
        values = rows.numpy()
        scale = np.abs(values).max(1, keepdims=True) / np.float32(127.5)
        return np.clip(np.rint(values * (1 / scale)), -128, 127).astype(np.int64), scale

    (qx, sx), (qw, sw) = codes(x), codes(W)
    assert np.array_equal(layer.codes.numpy(), qw)
    expected = (qx @ qw.T) * sx * sw.T + b.numpy()
    with torch.no_grad():
        np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_float8_rows_against_rounded_numbers() -> None:
    """e4m3 has 448 as its largest number: every row is scaled so that its largest value becomes
    that.
    """
    g = torch.Generator().manual_seed(0)
    W, x = torch.randn(16, 48, generator=g), torch.randn(5, 48, generator=g)
    layer = RowwiseLinear(W, None, torch.float8_e4m3fn)

    def rounded(rows: Tensor) -> Tensor:
        scale = rows.abs().amax(1, keepdim=True) / 448
        return (rows / scale).to(torch.float8_e4m3fn).double() * scale.double()

    with torch.no_grad():
        got = layer(x).double()
    torch.testing.assert_close(got, rounded(x) @ rounded(W).T, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(got, x.double() @ W.double().T, rtol=1e-4, atol=1e-4)


def test_the_operator_refuses_nothing_at_any_batch() -> None:
    layer = RowwiseLinear(torch.randn(16, 32), None, torch.int8)
    for shape in ((1, 32), (3, 5, 32), (2, 3, 4, 32)):
        x = torch.randn(shape)
        with torch.no_grad():
            assert layer(x).shape == (*shape[:-1], 16)
            torch.testing.assert_close(layer(x)[0], layer(x[:1])[0])  # a row's codes are its own
    torch.library.opcheck(rowwise_linear, (torch.randn(4, 32), layer.codes, layer.scale, None))
