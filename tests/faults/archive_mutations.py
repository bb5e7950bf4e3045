"""Random changes to archives, made where they hurt: names of members, places in the JSON, payloads,
the container."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from archive_parts import CONSTANTS, PROGRAM, SAMPLES, WEIGHTS, Archive, Canary, central_names

Mutation = Callable[[Archive, Canary, random.Random], Archive]

NAMES = (
    "data/sample_inputs/model.pt", "data/sample_inputs/MODEL.PT", "data/weights/model.pt",
    "data/constants/model.pt", "data/constants/opaque_obj_0", "data/constants/custom_obj_0",
    "data/constants/tensor_0", "data/weights/weight_0", "models/model.json", "models/modelxjson",
    "MODELS/model.json", "models/evil.json", "models/", "models/..json",
    "data/aotinductor/model/model.so", "data/aotinductor/model/weights_config.json", "extra/x",
    "data/executorch/x.pte", "version", "byteorder", ".data/version", "archive_format",
    "archive_version", "code/x.py", "data.pkl", "serialized_exported_program.json",
    "serialized_state_dict.pt", "../x", "/etc/x", "a\x00b", "x" * 500, "model\u0455/model.json",
    "\u202egnp.exe", "\x1b[2Jx",
)  # fmt: skip
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


def mutated(archive: Archive, canary: Canary, random: random.Random) -> tuple[str, Archive]:
    """One to three changes; the kind of the first."""
    kinds = random.choices(list(MUTATIONS), weights=(2, 4, 4, 2, 2), k=random.randint(1, 3))
    for kind in kinds:
        archive = MUTATIONS[kind](archive, canary, random)
    return kinds[0], archive


# -- members ---------------------------------------------------------------------------------------


def _members(archive: Archive, canary: Canary, random: random.Random) -> Archive:
    names = [name for name, _ in archive.members]
    victim = random.choice(names)
    evil = _payload(canary, random)
    match random.randrange(7):
        case 0:
            return archive.with_member(
                random.choice((*NAMES, *names)), evil, first=random.random() < 0.5
            )
        case 1:
            new = random.choice(
                (victim.upper(), victim.title(), victim.swapcase(), f"./{victim}", f"{victim}/")
            )
            return archive.with_member(new, evil, first=random.random() < 0.5)
        case 2:
            new = random.choice(
                (*NAMES, victim.upper(), victim.replace("/", "\\"), victim.replace(".", "x"))
            )
            return archive.renamed(lambda name: new if name == victim else name)
        case 3:
            return replace(archive, members=tuple(m for m in archive.members if m[0] != victim))
        case 4:
            return replace(
                archive,
                root=random.choice(("", "/", "../", "a/b/", "\u00e9/", "MODEL/", "x" * 300 + "/")),
            )
        case 5:
            return replace(
                archive, members=tuple(random.sample(archive.members, len(archive.members)))
            )
        case _:
            other = archive.changed(victim, lambda _: evil)
            return replace(
                archive,
                members=random.choice((other.members + archive.members, archive.members * 2)),
            )


def _payload(canary: Canary, random: random.Random) -> bytes:
    return random.choice(
        (canary.pickle, canary.torch_pickle, canary.code.encode(), b"", b"\x7fELF", b"{}")
    )


def _payloads(archive: Archive, canary: Canary, random: random.Random) -> Archive:
    data = [
        name
        for name, _ in archive.members
        if name.startswith("data/") and not name.endswith(".json")
    ]
    name = random.choice([*data, SAMPLES])

    def change(content: bytes) -> bytes:
        return random.choice(
            (_payload(canary, random), content[:-1], content * 2, content[::-1], b"")
        )

    return archive.changed(name, change)


# -- JSON ------------------------------------------------------------------------------------------


def _json(archive: Archive, canary: Canary, random: random.Random) -> Archive:
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


def _graph(archive: Archive, canary: Canary, random: random.Random) -> Archive:
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


# -- the container ---------------------------------------------------------------------------------


def _container(archive: Archive, canary: Canary, random: random.Random) -> Archive:
    seed = random.random()
    if random.random() < 0.1:
        return replace(
            archive,
            method=random.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)),
        )
    before = archive.edit

    def edit(content: bytes) -> bytes:
        return _damage(before(content), canary, type(random)(seed))

    return replace(archive, edit=edit)


def _damage(content: bytes, canary: Canary, random: random.Random) -> bytes:
    data = bytearray(content)
    match random.randrange(7):
        case 0:
            return content[: random.randrange(len(content))]
        case 1:
            return random.choice(
                (canary.torch_pickle + content, content + canary.torch_pickle, content * 2)
            )
        case 2:  # a field of some header
            marks = [
                i
                for i in range(len(data) - 60)
                if data[i : i + 4] in (b"PK\x01\x02", b"PK\x03\x04")
            ]
            at = random.choice(marks or [0]) + random.randrange(4, 46)
            data[at] = random.randrange(256)
        case 3:  # the end of the directory
            at = len(data) - random.randrange(1, 22)
            data[at] = random.randrange(256)
        case 4:
            for _ in range(random.randint(1, 20)):
                data[random.randrange(len(data))] = random.randrange(256)
        case 5:
            return central_names(
                content, lambda name: name.swapcase() if random.random() < 0.3 else name
            )
        case _:
            at = random.randrange(len(data))
            del data[at : at + random.randint(1, 50)]
    return bytes(data)


MUTATIONS: dict[str, Mutation] = {
    "members changed": _members,
    "JSON changed": _json,
    "graph changed": _graph,
    "payloads changed": _payloads,
    "container damaged": _container,
}
