"""Known ways to take all time or memory of whoever opens an archive, or to show two readers two
files.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from typing import Any

from archive_parts import (
    PROGRAM,
    WEIGHTS,
    Archive,
    Attack,
    Canary,
    central_names,
    first_size,
    kept_in,
    pickled_samples,
    signature,
)

LIMITS: dict[str, Attack] = {}
"""By what is done, all to the archive "float"."""
known = kept_in(LIMITS)


# -- time and memory -------------------------------------------------------------------------------


def _size(text: str) -> Attack:
    return lambda archive, canary: archive.program(lambda p: first_size(p).update(expr_str=text))


LIMITS["a size of 10^10^10"] = _size("Pow(Integer(10), Pow(Integer(10), Integer(10)))")
LIMITS["a size with Python's power"] = _size("10**10**10")
LIMITS["a size of brackets"] = _size("(" * 3000 + ")" * 3000)
LIMITS["a size of many terms"] = _size(
    "Pow(Add(" + ", ".join(f"Symbol('s{i}', integer=True)" for i in range(100)) + "), Integer(16))"
)


@known
def a_size_of_many_digits(archive: Archive, canary: Canary) -> Archive:
    return archive.changed(
        PROGRAM, lambda content: content.replace(b'"as_int": 2', b'"as_int": 2' + b"0" * 4000)
    )


@known
def squares_of_squares(archive: Archive, canary: Canary) -> Archive:
    """A size multiplied with itself sixty times."""

    def edit(program: Any) -> None:
        graph = program["graph_module"]["graph"]
        name = next(iter(graph["sym_int_values"]))
        value = graph["sym_int_values"][name]
        index = 1 + next(
            i for i, node in enumerate(graph["nodes"]) if name in json.dumps(node["outputs"])
        )
        for power in range(60):
            sides = [
                {"name": side, "arg": {"as_sym_int": {"as_name": name}}, "kind": 1} for side in "ab"
            ]
            name = f"square_{power}"
            node = {"target": "_operator.mul", "inputs": sides, "metadata": {}, "name": name}
            graph["nodes"].insert(index, node | {"outputs": [{"as_sym_int": {"as_name": name}}]})
            graph["sym_int_values"][name] = value
            index += 1

    return archive.program(edit)


@known
def a_symbol_of_a_high_number(archive: Archive, canary: Canary) -> Archive:
    """PyTorch counts up to it, one by one."""
    limits = {"u99999999999": {"min_val": 0, "max_val": 9}}
    return archive.program(lambda program: program["range_constraints"].update(limits))


@known
def deep_json(archive: Archive, canary: Canary) -> Archive:
    return archive.changed(PROGRAM, lambda _: b'{"graph_module":' * 50_000 + b"1" + b"}" * 50_000)


@known
def deep_trees(archive: Archive, canary: Canary) -> Archive:
    tree = '{"type":"builtins.tuple","context":"null","children_spec":[' * 20_000 + "]}" * 20_000
    return archive.program(lambda program: signature(program).update(out_spec=f"[1,{tree}]"))


@known
def zip_bomb(archive: Archive, canary: Canary) -> Archive:
    bomb = archive.changed("data/weights/weight_0", lambda _: bytes(200_000_000))
    return replace(bomb, method=zipfile.ZIP_DEFLATED)


@known
def empty_member_of_a_huge_tensor(archive: Archive, canary: Canary) -> Archive:
    """PyTorch allocates what a member without bytes is said to hold."""
    return _with_sizes(archive.changed("data/weights/weight_0", lambda _: b""), [2**40], [1])


@known
def tensor_beyond_its_bytes(archive: Archive, canary: Canary) -> Archive:
    return _with_sizes(archive, [100_000], [2**20])


def _with_sizes(archive: Archive, sizes: list[int], strides: list[int]) -> Archive:
    def edit(config: Any) -> None:
        for entry in config["config"].values():
            if entry["path_name"] == "weight_0":
                entry["tensor_meta"]["sizes"] = [{"as_int": n} for n in sizes]
                entry["tensor_meta"]["strides"] = [{"as_int": n} for n in strides]

    return archive.edited(WEIGHTS, edit)


# -- the container ---------------------------------------------------------------------------------


@known
def two_archives_in_one_file(archive: Archive, canary: Canary) -> Archive:
    evil = pickled_samples(archive, canary).to_bytes()
    return replace(archive, edit=lambda content: evil + content)


@known
def an_archive_behind_the_end(archive: Archive, canary: Canary) -> Archive:
    evil = pickled_samples(archive, canary).to_bytes()
    return replace(archive, edit=lambda content: content + evil)


@known
def other_names_in_the_directory(archive: Archive, canary: Canary) -> Archive:
    """One member's header says it is a text, the directory says it is the samples, for readers that
    differ."""
    evil = archive.with_member("data/sample_inputs/nodel.pt", canary.torch_pickle, first=True)
    return replace(
        evil,
        edit=lambda content: central_names(content, lambda name: name.replace(b"nodel", b"model")),
    )


@known
def names_that_leave_the_archive(archive: Archive, canary: Canary) -> Archive:
    return archive.with_member("../../../../../../../tmp/petra-canary", canary.pickle)


@known
def two_folders(archive: Archive, canary: Canary) -> Archive:
    evil = pickled_samples(archive, canary).renamed(lambda name: f"evil/{name}")
    return Archive(evil.members + archive.renamed(lambda name: f"model/{name}").members, root="")


@known
def no_folder(archive: Archive, canary: Canary) -> Archive:
    return replace(archive, root="")


@known
def damaged_bytes(archive: Archive, canary: Canary) -> Archive:
    weights = archive.get("data/weights/weight_0")
    return replace(archive, edit=lambda content: content.replace(weights, bytes(len(weights)), 1))
