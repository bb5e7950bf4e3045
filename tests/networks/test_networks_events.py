"""Event encoders: padding changes nothing, order and facts do, names are checked."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from petra.core.errors import ConfigError, DataError
from petra.model.flops import macs_by_module
from petra.model.surgery import count_parameters
from petra.networks.events import EventGRU, EventTransformer, positions

CATEGORIES = {"type": 10, "keys": 20}  # names that modules have for themselves
Columns = dict[str, Tensor]
ENCODERS = pytest.mark.parametrize("kind", [EventGRU, EventTransformer])


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def made(kind: type[nn.Module], *, numeric: int = 2, static: int = 0) -> nn.Module:
    return kind(CATEGORIES, numeric, 2, static=static).eval()  # type: ignore[call-arg]


def items(n: int, length: int, *, numeric: int = 2, static: int = 0) -> Columns:
    """Events without padding."""
    found = {name: torch.randint(1, size, (n, length)) for name, size in CATEGORIES.items()}
    if numeric:
        found["numeric"] = torch.randn(n, length, numeric)
    if static:
        found["static"] = torch.randn(n, static)
    return {**found, "mask": torch.ones(n, length, dtype=torch.bool)}


def padded(columns: Columns, more: int, *, rubbish: bool = False) -> Columns:
    """The same items with `more` padded positions behind."""
    n = len(columns["mask"])
    found = dict(columns)
    for name, t in columns.items():
        if name == "static":
            continue
        behind = torch.zeros(n, more, *t.shape[2:], dtype=t.dtype)
        if rubbish and name in CATEGORIES:
            behind = torch.randint(0, CATEGORIES[name], behind.shape)
        elif rubbish and name == "numeric":
            behind = 1e3 * torch.randn(behind.shape)
        found[name] = torch.cat([t, behind], 1)
    return found


# -- padding ---------------------------------------------------------------------------------------


@ENCODERS
@pytest.mark.parametrize("rubbish", [False, True])
@pytest.mark.parametrize(("numeric", "static"), [(2, 0), (0, 3)])
@torch.no_grad()
def test_an_item_does_not_depend_on_how_far_it_is_padded(
    kind: type[nn.Module], rubbish: bool, numeric: int, static: int
) -> None:
    model = made(kind, numeric=numeric, static=static)
    for length in (1, 2, 9):
        columns = items(3, length, numeric=numeric, static=static)
        alone = model(**columns)
        assert alone.shape == (3, 2)
        for more in (1, 7, 300):
            together = model(**padded(columns, more, rubbish=rubbish))
            torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@ENCODERS
@torch.no_grad()
def test_items_of_different_length_in_one_batch_are_as_alone(kind: type[nn.Module]) -> None:
    model = made(kind)
    parts = [items(1, length) for length in (4, 11, 1, 7)]
    batch = [padded(part, 11 - part["mask"].shape[1]) for part in parts]
    together = model(**{name: torch.cat([part[name] for part in batch]) for name in batch[0]})
    alone = torch.cat([model(**part) for part in parts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@ENCODERS
def test_no_gradient_reaches_padding(kind: type[nn.Module]) -> None:
    model, columns = made(kind), padded(items(2, 5), 3, rubbish=True)
    columns["numeric"].requires_grad_()
    model(**columns).square().sum().backward()
    gradient = columns["numeric"].grad
    assert gradient is not None
    assert not gradient[:, 5:].any()
    assert gradient[:, :5].abs().amax((0, 2)).min() > 0


# -- what counts -----------------------------------------------------------------------------------


@ENCODERS
@torch.no_grad()
def test_order_categories_numbers_and_facts_count(kind: type[nn.Module]) -> None:
    model, columns = made(kind, static=2), items(4, 6, static=2)
    before = model(**columns)
    reversed_ = {name: t if name == "static" else t.flip(1) for name, t in columns.items()}
    others = [reversed_]
    others += [
        {**columns, "type": columns["type"] % 9 + 1},
        {**columns, "numeric": columns["numeric"] + 1},
        {**columns, "static": columns["static"] + 1},
    ]
    for other in others:
        assert not torch.allclose(model(**other), before, atol=1e-3)


def test_positions_count_back_from_the_last_event() -> None:
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    found = positions(mask, 8)
    assert found.shape == (2, 4, 8)
    torch.testing.assert_close(found[0, 2], found[1, 0])
    torch.testing.assert_close(found[1, 0], torch.tensor([0.0] * 4 + [1.0] * 4))
    frequencies = torch.tensor([1.0, 0.1, 0.01, 0.001])
    torch.testing.assert_close(found[0, 0, :4], (2 * frequencies).sin())


def test_the_embedding_of_padding_stays_zero_in_training() -> None:
    model = EventGRU(CATEGORIES, 2, 2).train()
    model(**padded(items(4, 5), 3)).sum().backward()
    for table in model.events.tables:
        assert not table.weight[0].any()
        assert not table.weight.grad[0].any()


@pytest.mark.parametrize(
    ("kind", "parameters", "macs"),
    [(EventGRU, 20_476, 10 * 15_552), (EventTransformer, 105_788, 10 * (99_392 + 256 * 10))],
)
def test_sizes_are_as_documented(kind: type[nn.Module], parameters: int, macs: int) -> None:
    model = made(kind)
    assert count_parameters(model) == parameters
    head = 64 * 64 + 64 * 2
    assert macs_by_module(model, lambda m: m(**items(1, 10)))[""] == macs + head
    assert f"{parameters:,} parameters" in " ".join((kind.__doc__ or "").split())


# -- refusals --------------------------------------------------------------------------------------


@ENCODERS
def test_what_cannot_be_is_refused(kind: type[nn.Module]) -> None:
    with pytest.raises(ConfigError, match="no category and no number"):
        kind({}, 0, 2)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="'mask' is the name of another input"):
        kind({"mask": 3}, 0, 2)  # type: ignore[call-arg]
    columns = items(1, 3)
    with pytest.raises(DataError, match="is given keys, mask, numeric") as error:
        made(kind)(**{name: t for name, t in columns.items() if name != "type"})
    assert error.value.hint == "it takes, by name: type, keys, numeric, mask"
    with pytest.raises(DataError, match="static"):
        made(kind)(**columns, static=torch.zeros(1, 2))


def test_positions_need_an_even_width() -> None:
    with pytest.raises(ConfigError, match="33 is odd"):
        EventTransformer(CATEGORIES, 2, 2, width=33, heads=3)
