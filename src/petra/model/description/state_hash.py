"""A hash of what a model computes with: its structure and every bit of its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sized

import torch
from torch import Tensor, nn

from petra.model.description.attribute_values import NotDescribable, encode

# Train/eval mode is how a model is used, not what it is; the rest is hashed in its own way.
_NOT_HASHED = frozenset(
    {"training", "_parameters", "_buffers", "_modules", "_flat_weights", "_flat_weight_refs"}
)


def state_hash(model: nn.Module) -> str:
    """64 hexadecimal digits, equal for models equal in modules, attributes, shapes, types and bits
    of all tensors.

    Train/eval mode, ``requires_grad``, gradients and memory layout do not count. Attributes that
    are not plain values count by their type and length only. Reads all weights once, about a
    gigabyte a second.
    """
    digest = hashlib.blake2b(digest_size=32)
    for path, module in model.named_modules():
        digest.update(json.dumps([path, _name(type(module)), list(module._modules)]).encode())
        if isinstance(module, torch.fx.GraphModule):
            digest.update(module.code.encode())
        for name in sorted(vars(module).keys() - _NOT_HASHED):
            digest.update(f"{name}={_attribute(vars(module)[name])}".encode())
        for slot in (module._parameters, module._buffers):
            for name, tensor in slot.items():
                digest.update(f"{path}.{name}".encode())
                for part in tensor_bytes(tensor):
                    digest.update(part)
    return digest.hexdigest()


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _attribute(value: object) -> str:
    if isinstance(value, Tensor):
        return hashlib.blake2b(b"".join(bytes(part) for part in tensor_bytes(value))).hexdigest()
    try:
        return json.dumps(encode(value))
    except NotDescribable:
        length = len(value) if isinstance(value, Sized) else 0
        return f"{_name(type(value))} {getattr(value, '__qualname__', '')} {length}"


def tensor_bytes(tensor: Tensor | None) -> Iterator[bytes | memoryview]:
    """Type, shape and content. Tensor subclasses give those of the tensors they are made of."""
    if tensor is None:
        return
    inner = getattr(tensor, "__tensor_flatten__", None)
    if inner is not None:
        names, context = inner()
        yield f"{_name(type(tensor))} {context}".encode()
        for name in names:
            yield from tensor_bytes(getattr(tensor, name))
        return
    yield f"{tensor.dtype} {tuple(tensor.shape)} {tensor.layout}".encode()
    if tensor.is_meta or tensor.is_quantized or tensor.numel() == 0:
        return
    dense = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    yield dense.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
