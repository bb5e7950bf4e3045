"""Where the parameters and buffers of a model are held."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

SLOTS = ("_parameters", "_buffers")


@dataclass(frozen=True)
class TensorSlot:
    """Where a parameter or buffer is held: ``held[name]``, of its module's dict."""

    key: str
    held: dict[str, Tensor | None]
    name: str
    tensor: Tensor
    is_parameter: bool


def tensor_slots(model: nn.Module) -> Iterator[TensorSlot]:
    """Every slot with a tensor in it, module by module; a tensor in several slots comes often."""
    for path, module in model.named_modules():
        for slot in SLOTS:
            held: dict[str, Tensor | None] = getattr(module, slot)
            for name, tensor in held.items():
                if tensor is not None:
                    yield TensorSlot(
                        f"{path}.{name}" if path else name,
                        held,
                        name,
                        tensor,
                        slot == "_parameters",
                    )
