"""Random changes to the JSON of archives: at any place, or among values of the same kind."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from archive_parts import CONSTANTS, PROGRAM, WEIGHTS, Archive, Canary

TARGETS = (
    "torch.os.system", "torch.load", "torch.hub.load", "torch.builtins.eval",
    "torch._C._jit_pass_inline", "torch.ops.aten.save.default", "torch.ops.aten.from_file.default",
    "torch.ops.aten._print.default", "torch.ops.aten.warn.default", "torch.ops.prim.Print",
    "torch.ops.load_library", "torch.ops.aten.relu.__class__",
    "torch.ops.higher_order.with_effects", "torch.ops.higher_order.call_torchbind",
    "_operator.call", "math.sqrt", "_operator.attrgetter", "_operator.pow", "_operator.mul",
    "#ns:op", "torch.ops.aten.relu.default", "torch", "torch.ops.aten.zeros.default",
    "torch.ops.aten.empty_strided.default", "torch.ops.aten.as_strided.default",
    "torch.ops.aten.set_.source_Tensor", "torch.ops.aten.resize_.default",
    "torch.ops.higher_order.while_loop",
)  # fmt: skip
OPERATORS = """
add.Tensor mul.Tensor sub.Tensor div.Tensor relu relu_ matmul t view reshape expand transpose.int
permute squeeze.dim item unsqueeze sum.dim_IntList max.dim sort unique_dim nonzero zeros
empty.memory_format full arange randn as_strided resize_ index.Tensor index_put_ gather
scatter.src embedding conv2d batch_norm lstm.input to_sparse to.dtype fft_fft complex view_as_real
bitwise_and.Tensor sym_size.int sym_numel cat split.Tensor backward detach_ alias
quantize_per_tensor cond repeat_interleave.Tensor bincount linalg_svd cumsum _assert_scalar
sym_constrain_range_for_size sym_constrain_range native_dropout mkldnn_linear
"""  # overload "default" where none is given
NUMBERS = (-1, 0, 1, 7, 2**31, 2**53, 2**63 - 1, 2**63, 10**30, 10**400, -(2**63), 0.5, 1e308)
VALUES = (
    None,
    True,
    False,
    "",
    "x",
    [],
    {},
    [[]],
    {"as_int": 1},
    {"as_none": True},
    "Infinity",
    "NaN",
)
KINDS = (
    "as_none", "as_tensor", "as_tensors", "as_int", "as_ints", "as_float", "as_string",
    "as_sym_int", "as_sym_ints", "as_bool", "as_graph", "as_custom_obj", "as_operator", "as_device",
    "as_layout", "as_scalar_type", "as_complex", "as_nested_tensors", "as_string_to_argument",
    "as_expr", "as_name", "as_optional_tensors",
)  # fmt: skip


def json_changed(archive: Archive, canary: Canary, random: random.Random) -> Archive:
    name = random.choice((PROGRAM, PROGRAM, PROGRAM, WEIGHTS, CONSTANTS))

    def change(content: bytes) -> bytes:
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):  # spoiled before
            return content
        for _ in range(random.randint(1, 3)):
            places = list(_places(value))
            if places:
                _spoil(*random.choice(places), places, canary, random)
        if random.random() < 0.05:
            depth = random.choice((100, 1000, 100_000))
            return b"[" * depth + json.dumps(value).encode() + b"]" * depth
        return json.dumps(value).encode()

    return archive.changed(name, change)


def graph_changed(archive: Archive, canary: Canary, random: random.Random) -> Archive:
    """Values put where others of the same kind stand, so that the JSON is well-formed and the
    program is not."""

    def edit(program: Any) -> None:
        places = list(_places(program))
        kind = random.choice([key for _, key in places if isinstance(key, str)])
        for _ in range(random.randint(1, 3)):
            same = [(where, key) for where, key in places if key == kind]
            (one, key), (other, _) = random.choice(same), random.choice(same)
            one[key] = json.loads(json.dumps(other[key]))
            if kind in ("as_int", "dtype", "min_val") and random.random() < 0.5:
                one[key] = random.choice(
                    (0, 1, 2, 3, 7, 12, 13, 29, -1, 64, 10**6, 2**31, 2**40, 2**62)
                )
            if kind == "target" and random.random() < 0.7:
                name = random.choice(OPERATORS.split())
                one[key] = f"torch.ops.aten.{name}" + ("" if "." in name else ".default")

    try:
        return archive.program(edit)
    except (ValueError, RecursionError, TypeError, IndexError):  # spoiled before
        return archive


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with every key or index in it."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _spoil(
    where: Any, key: Any, places: list[tuple[Any, Any]], canary: Canary, random: random.Random
) -> None:
    old = where[key]
    match random.randrange(9):
        case 0 | 1:
            where[key] = _text(old, canary, random)
        case 2:
            where[key] = random.choice(NUMBERS)
        case 3:
            where[key] = random.choice(VALUES)
        case 4:
            other, name = random.choice(places)
            where[key] = json.loads(json.dumps(other[name]))
        case 5 if isinstance(where, dict):
            where[random.choice((*KINDS, _text(key, canary, random)))] = where.pop(key)
        case 6 if isinstance(where, dict):
            where[random.choice((*KINDS, "custom", "x", "use_pickle", "guards_code"))] = (
                random.choice((old, True, "x"))
            )
        case 7:
            del where[key]
        case _:
            targets = [
                place
                for place in places
                if place[1] in ("target", "expr_str", "in_spec", "out_spec")
            ]
            other, name = random.choice(targets) if targets else (where, key)
            other[name] = random.choice(
                (random.choice(TARGETS), _text(other[name], canary, random))
            )


def _text(old: object, canary: Canary, random: random.Random) -> str:
    code, text = canary.code, str(old)
    return random.choice(
        (
            code, f"{text}={code}", f"{text}: {code} = 1", f'{text}"); {code}; ("',
            f"{text}'); {code}; ('", f"{text}\n    {code}\n    #", f"{text}#\n{code}",
            f"Symbol('s0', integer={code})", f"Integer({code})", f"Max(Integer(1), *[{code}])",
            f"Add(Integer(1), {code} or Integer(1))", f"{text};{code}", "__class__",
            f"Pow(Integer(2), Integer({10**9}))", f"{text}.__class__", "self", "torch", "lambda",
            "a" * 5000, "\x00", f"{text}\u2028{code}",
            "\ud800" if random.random() < 0.1 else "\u00e9", f"[{code} for x in [1]]",
        )
    )  # fmt: skip
