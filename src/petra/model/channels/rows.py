"""The weights that go with a channel, as rows of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from petra.model.kinds import BatchNorm, channel_dim, is_weighted

NORMS = (BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm)


def has_weights(module: object) -> bool:
    """Whether weights of the module go with a channel: a weighted layer, or a norm with gains."""
    return is_weighted(module) or (isinstance(module, NORMS) and module.weight is not None)


def rows(module: nn.Module, tensor: Tensor, *, inputs: bool) -> Tensor:
    """(channels, elements) a tensor in the shape of the module's weight, by the output channels
    that its elements make or, with `inputs`, the input channels that they read (each group of a
    grouped convolution has its own).
    """
    if tensor.ndim == 1:  # the gains of a norm
        return tensor[:, None]
    dim = channel_dim(module)
    if not inputs:
        return tensor.movedim(dim, 0).flatten(1)
    if dim == 1:
        return tensor.flatten(1)
    groups = int(getattr(module, "groups", 1))
    return tensor.reshape(groups, -1, *tensor.shape[1:]).transpose(1, 2).flatten(0, 1).flatten(1)


def parts_before(owners: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(k,) the owners, and (k,) how many parts of its owner come before each part."""
    seen: Counter[int] = Counter()
    before = []
    for owner in owners:
        before.append(seen[owner])
        seen[owner] += 1
    return torch.tensor(owners), torch.tensor(before)


def table_of(parts: Tensor, owners: Tensor, before: Tensor, width: int) -> Tensor:
    """(width, ...) for each owner a row of all its parts (k, m), in the places that `parts_before`
    gave them, and zeros.
    """
    table = parts.new_zeros(width, int(before.max()) + 1, parts.shape[1])
    return table.index_put((owners.to(parts.device), before.to(parts.device)), parts).flatten(1)
