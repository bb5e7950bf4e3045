"""Classes of modules by name, and empty instances of them. Only trusted packages are ever imported
for a name; other classes are given, by the model or by the stages that this process knows.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping

from torch import nn

from petra.model.description.attribute_values import NotDescribable

# Classes that may be made anew beside those of the original itself. Reading a description imports
# from here only.
_TRUSTED = ("torch.nn.modules.", "petra.")


def class_name(cls: type) -> str:
    """Module and qualified name, with a colon between."""
    return f"{cls.__module__}:{cls.__qualname__}"


def known_classes(
    original: nn.Module, brought: Collection[type[nn.Module]] = ()
) -> dict[str, type[nn.Module] | None]:
    """The original's own classes and those `brought` by stages, by name; None for a name that two
    of them have."""
    known: dict[str, type[nn.Module] | None] = {}
    for cls in {*(type(m) for m in original.modules()), *brought}:
        known[class_name(cls)] = None if class_name(cls) in known else cls
    return known


def find_class(
    name: str, known: Mapping[str, type[nn.Module] | None], path: str
) -> type[nn.Module]:
    """The class of that name (`class_name`): one of `known`, or torch's or petra's own.

    Raises NotDescribable, naming the layer at `path`, for any other.
    """
    found: object = known.get(name)
    module, _, qualified = name.partition(":")
    if name not in known and f"{module}.".startswith(_TRUSTED):
        try:
            found = importlib.import_module(module)
            for part in qualified.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError):
            found = None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise NotDescribable(
            f"layer {path!r}: the class {name} is neither in the original model, nor one of torch's"
            " or petra's, nor one that a stage of the pipeline declares"
        )
    return found


def blank(cls: type[nn.Module]) -> nn.Module:
    """An instance as `nn.Module.__init__` leaves it: no attributes, no children, no tensors of its
    own.
    """
    module = cls.__new__(cls)
    nn.Module.__init__(module)
    return module
