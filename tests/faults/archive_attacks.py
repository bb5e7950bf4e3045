"""Known ways to have a ``.pt2`` archive run code, read files, take all memory or never end: one
function each."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from archive_parts import (
    CONSTANTS,
    PROGRAM,
    SAMPLES,
    WEIGHTS,
    Archive,
    Canary,
    central_names,
    first_size,
    nodes,
    renamed_text,
    signature,
)

Attack = Callable[[Archive, Canary], Archive]
KNOWN: dict[str, Attack] = {}
"""By what is done; every one is made of the archive "float" or, where names of inputs matter,
"named"."""


def known(attack: Attack) -> Attack:
    KNOWN[attack.__name__.replace("_", " ")] = attack
    return attack


# -- pickles ---------------------------------------------------------------------------------------


@known
def pickled_sample_inputs(archive: Archive, canary: Canary) -> Archive:
    return archive.changed(SAMPLES, lambda _: canary.torch_pickle)


@known
def pickled_samples_in_other_case(archive: Archive, canary: Canary) -> Archive:
    """PyTorch's reader looks names up without regard to case."""
    return archive.with_member("data/sample_inputs/MODEL.pt", canary.torch_pickle, first=True)


@known
def pickled_samples_twice(archive: Archive, canary: Canary) -> Archive:
    """PyTorch takes the first of two members with one name, Python's `zipfile` the last."""
    return archive.with_member(SAMPLES, canary.torch_pickle, first=True)


def _pickled(table: str, folder: str, prefix: str) -> Attack:
    def attack(archive: Archive, canary: Canary) -> Archive:
        def edit(config: Any) -> None:
            entry = next(iter(config["config"].values()))
            entry |= {"path_name": f"{prefix}0", "use_pickle": True}

        name = f"{folder}{prefix}0"
        payload = canary.pickle if prefix == "opaque_obj_" else canary.torch_pickle
        without = replace(archive, members=tuple((n, c) for n, c in archive.members if n != name))
        return without.edited(table, edit).with_member(name, payload)

    return attack


KNOWN["pickled weight"] = _pickled(WEIGHTS, "data/weights/", "weight_")
KNOWN["pickled constant"] = _pickled(CONSTANTS, "data/constants/", "tensor_")
KNOWN["opaque constant"] = _pickled(CONSTANTS, "data/constants/", "opaque_obj_")
KNOWN["custom constant"] = _pickled(CONSTANTS, "data/constants/", "custom_obj_")


@known
def old_weights(archive: Archive, canary: Canary) -> Archive:
    return archive.with_member("data/weights/model.pt", canary.torch_pickle)


@known
def old_constants(archive: Archive, canary: Canary) -> Archive:
    return archive.with_member("data/constants/model.pt", canary.torch_pickle)


@known
def second_model_without_a_dot(archive: Archive, canary: Canary) -> Archive:
    """Of `models/modelxjson` PyTorch makes the model `model` as well."""
    evil = archive.program(lambda program: first_size(program).update(expr_str=canary.code))
    return archive.with_member("models/modelxjson", evil.get(PROGRAM))


@known
def layout_before_2_8(archive: Archive, canary: Canary) -> Archive:
    parts = {
        "version": b"8.20",
        "serialized_exported_program.json": archive.get(PROGRAM),
        "serialized_state_dict.pt": canary.torch_pickle,
        "serialized_constants.pt": b"",
        "serialized_example_inputs.pt": b"",
    }
    return Archive(tuple(parts.items()), root="")


@known
def both_layouts(archive: Archive, canary: Canary) -> Archive:
    """Where the newer layout does not load, PyTorch falls back to the older one of the same file."""
    old = layout_before_2_8(archive, canary)
    broken = archive.renamed(lambda name: f"model/{name}").changed("model/models/model.json", lambda _: b"{")
    return Archive(broken.members + old.members, root="")


@known
def extra_files(archive: Archive, canary: Canary) -> Archive:
    return archive.with_member("extra/run.py", canary.code.encode())


@known
def compiled_library(archive: Archive, canary: Canary) -> Archive:
    return archive.with_member("data/aotinductor/model/model.so", b"\x7fELF" + canary.pickle)


@known
def executorch_program(archive: Archive, canary: Canary) -> Archive:
    return archive.with_member("data/executorch/model.pte", canary.pickle)


# -- text that becomes Python ----------------------------------------------------------------------


@known
def code_as_a_size(archive: Archive, canary: Canary) -> Archive:
    return archive.program(lambda program: first_size(program).update(expr_str=canary.code))


@known
def code_behind_a_size(archive: Archive, canary: Canary) -> Archive:
    """As an assumption about a symbol, which a list of words would overlook."""

    def edit(program: Any) -> None:
        first_size(program)["expr_str"] = f"Symbol('s0', integer=[{canary.code}])"

    return archive.program(edit)


@known
def code_as_an_input_name(archive: Archive, canary: Canary) -> Archive:
    def edit(program: Any) -> None:
        names = signature(program)["forward_arg_names"]
        names[0] = f"{names[0]}={canary.code}"

    return archive.program(edit)


@known
def code_as_a_key_of_inputs(archive: Archive, canary: Canary) -> Archive:
    def edit(program: Any) -> None:
        version, tree = json.loads(signature(program)["in_spec"])
        children = tree["children_spec"]
        children[1] = {
            "type": "builtins.dict",
            "context": json.dumps([f"x':{canary.code},'y"]),
            "children_spec": [{"type": None, "context": None, "children_spec": []}],
        }
        children[0]["children_spec"] = []
        signature(program)["in_spec"] = json.dumps([version, tree])

    return archive.program(edit)


@known
def code_as_a_weight_name(archive: Archive, canary: Canary) -> Archive:
    change = renamed_text("linear.weight", f'linear"); {canary.code}; ("weight')
    return archive.changed(PROGRAM, change).changed(WEIGHTS, change)


@known
def code_as_a_node_name(archive: Archive, canary: Canary) -> Archive:
    return archive.changed(PROGRAM, renamed_text("relu", f"relu = {canary.code}; relu"))


@known
def code_as_an_argument_name(archive: Archive, canary: Canary) -> Archive:
    def edit(program: Any) -> None:
        node = nodes(program)[0]
        node["target"] = "torch.ops.higher_order.wrap_with_set_grad_enabled"
        node["inputs"].append({"name": f"x={canary.code}, y", "arg": {"as_int": 1}, "kind": 2})

    return archive.program(edit)


@known
def code_as_guards(archive: Archive, canary: Canary) -> Archive:
    return archive.program(lambda program: program.update(guards_code=[canary.code]))


@known
def code_as_metadata(archive: Archive, canary: Canary) -> Archive:
    def edit(program: Any) -> None:
        for node in nodes(program):
            node["metadata"] = {
                "stack_trace": f"File x\n{canary.code}",
                "nn_module_stack": f"{canary.code},x,y",
            }

    return archive.program(edit)


# -- functions that are no operators ---------------------------------------------------------------


def _calls(target: str) -> Attack:
    def attack(archive: Archive, canary: Canary) -> Archive:
        def edit(program: Any) -> None:
            node = nodes(program)[0]
            node["target"] = target
            code = f"python3 -c '{canary.code}'" if target.endswith("system") else canary.code
            node["inputs"] = [{"name": "", "arg": {"as_string": code}, "kind": 1}]

        return archive.program(edit)

    return attack


KNOWN["calls the shell"] = _calls("torch.os.system")
KNOWN["calls eval"] = _calls("torch.serialization.os.sys.modules.get")
KNOWN["calls a built-in"] = _calls("torch.builtins.eval")
KNOWN["calls torch.load"] = _calls("torch.load")
KNOWN["calls an operator's globals"] = _calls("torch.ops.aten.relu.default.__class__")
KNOWN["calls methodcaller"] = _calls("_operator.methodcaller")


@known
def writes_a_file(archive: Archive, canary: Canary) -> Archive:
    """TorchScript's own operators are found under the same names as PyTorch's."""

    def edit(program: Any) -> None:
        node = nodes(program)[0]
        node["target"] = "torch.ops.aten.save.default"
        node["inputs"] = [
            {"name": "item", "arg": {"as_int": 1}, "kind": 1},
            {"name": "filename", "arg": {"as_string": str(canary.path)}, "kind": 1},
        ]

    return archive.program(edit)


@known
def reads_a_file(archive: Archive, canary: Canary) -> Archive:
    def edit(program: Any) -> None:
        node = nodes(program)[0]
        node["target"] = "torch.ops.aten.from_file.default"
        node["inputs"] = [{"name": "filename", "arg": {"as_string": "/etc/passwd"}, "kind": 1}]

    return archive.program(edit)


@known
def operator_as_an_argument(archive: Archive, canary: Canary) -> Archive:
    return archive.program(lambda p: nodes(p)[0]["inputs"][0].update(arg={"as_operator": "torch.os.system"}))


@known
def imports_a_module(archive: Archive, canary: Canary) -> Archive:
    def edit(program: Any) -> None:
        context = json.dumps([{"__enum__": True, "fqn": "antigravity:X", "name": "x"}])
        leaf = {"type": None, "context": None, "children_spec": []}
        tree = {"type": "builtins.dict", "context": context, "children_spec": [leaf]}
        signature(program)["out_spec"] = json.dumps([1, tree])

    return archive.program(edit)


# -- time and memory -------------------------------------------------------------------------------


def _size(text: str) -> Attack:
    return lambda archive, canary: archive.program(lambda p: first_size(p).update(expr_str=text))


KNOWN["a size of 10^10^10"] = _size("Pow(Integer(10), Pow(Integer(10), Integer(10)))")
KNOWN["a size with Python's power"] = _size("10**10**10")
KNOWN["a size of brackets"] = _size("(" * 3000 + ")" * 3000)
KNOWN["a size of many terms"] = _size(
    "Pow(Add(" + ", ".join(f"Symbol('s{i}', integer=True)" for i in range(100)) + "), Integer(16))"
)


@known
def a_size_of_many_digits(archive: Archive, canary: Canary) -> Archive:
    return archive.changed(PROGRAM, lambda content: content.replace(b'"as_int": 2', b'"as_int": 2' + b"0" * 4000))


@known
def squares_of_squares(archive: Archive, canary: Canary) -> Archive:
    """A size multiplied with itself sixty times."""

    def edit(program: Any) -> None:
        graph = program["graph_module"]["graph"]
        name = next(iter(graph["sym_int_values"]))
        value = graph["sym_int_values"][name]
        index = 1 + next(i for i, node in enumerate(graph["nodes"]) if name in json.dumps(node["outputs"]))
        for power in range(60):
            sides = [{"name": side, "arg": {"as_sym_int": {"as_name": name}}, "kind": 1} for side in "ab"]
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
    evil = pickled_sample_inputs(archive, canary).to_bytes()
    return replace(archive, edit=lambda content: evil + content)


@known
def an_archive_behind_the_end(archive: Archive, canary: Canary) -> Archive:
    evil = pickled_sample_inputs(archive, canary).to_bytes()
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
    evil = pickled_sample_inputs(archive, canary).renamed(lambda name: f"evil/{name}")
    return Archive(evil.members + archive.renamed(lambda name: f"model/{name}").members, root="")


@known
def no_folder(archive: Archive, canary: Canary) -> Archive:
    return replace(archive, root="")


@known
def damaged_bytes(archive: Archive, canary: Canary) -> Archive:
    weights = archive.get("data/weights/weight_0")
    return replace(archive, edit=lambda content: content.replace(weights, bytes(len(weights)), 1))
